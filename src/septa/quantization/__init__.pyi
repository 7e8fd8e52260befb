from .run import quantize as quantize
