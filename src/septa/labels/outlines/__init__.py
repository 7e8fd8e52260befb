"""Labels that other programs store as outlines: GeoJSON, COCO, labelme and ImageJ files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
