"""The models that ship with septa: for each ``NAME.septa`` here, its card ``NAME.md`` and an example ``NAME.png``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
