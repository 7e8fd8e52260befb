from .file import KIND as KIND
from .model import Model as Model
from .net import build_net as build_net
from .options import PredictionOptions as PredictionOptions
from .precision import BF16 as BF16
from .precision import PRECISIONS as PRECISIONS
from .precision import Bf16Difference as Bf16Difference
from .precision import explain_precision as explain_precision
