from .file import KIND as KIND
from .model import Model as Model
from .net import build_net as build_net
from .options import PredictionOptions as PredictionOptions
