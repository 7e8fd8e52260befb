"""Tasks: semantic or instances. Each encodes labels to targets and decodes network output to labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
