"""The models that ship with septa.

Each is a file ``NAME.septa`` with its card ``NAME.md`` in this folder. A data folder ``examples/NAME`` holds images to
show it on, which it was not trained on. Those of ``nuclei`` are from the 2018 Data Science Bowl (BBBC038v1, CC0):
``2e172afb1f43``, and a crop of ``853a4c67900c``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
