"""The prediction workflow: image files to label files.

::

    run       the workflow, read from top to bottom
    options   the options of a prediction, and its results
    find      the image files to segment
    pipeline  the three steps of a page: read it, run the net, write its files
    pages     files and pages on the way through the pipeline
    output    the label files and pictures that are written
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
