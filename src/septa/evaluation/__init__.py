"""The evaluation workflow: scores of a model on labelled data, or of label files against label files.

::

    models    a model on images and their labels
    files     predicted label files against true ones
    shared    steps of both
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
