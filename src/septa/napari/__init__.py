"""A plugin for napari: it segments open images, and opens results of septa. See docs/napari.md."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
