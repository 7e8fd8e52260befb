"""The prediction workflow: image files to label files.

::

    run       the workflow, read from top to bottom
    options   the options of a prediction, and its results
    find      the image files to segment
    pipeline  the three steps of a page: read it, run the net, write its files
    targets   names of the files that are written, and the checks that they replace nothing of others
    pages     files and pages on the way through the pipeline
    output    the label files, pictures and numbers that a prediction gives
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
