"""Figures of matplotlib: panels of images, labels and predictions, and the curves of a training.

matplotlib comes with ``pip install 'septa[plot]'`` and loads when a figure is made.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
