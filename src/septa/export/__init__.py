"""Export of models to other programs: ONNX, TorchScript, OpenVINO and bioimage.io packages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
