from .run import QuantizedModel as QuantizedModel
from .run import quantize as quantize
from .run import round_to_float16 as round_to_float16
