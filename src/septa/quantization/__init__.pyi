from .run import QuantizedModel as QuantizedModel
from .run import make_small as make_small
from .run import quantize as quantize
from .run import round_to_float16 as round_to_float16
