"""Images of any size that are read window by window: TIFF, OME-TIFF and OME-Zarr."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
