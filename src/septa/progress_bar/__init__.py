"""Progress of long work: what callbacks receive, and a bar for terminals and notebooks.

::

    event   what a callback receives
    bar     a bar for the terminal, or for a notebook
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
