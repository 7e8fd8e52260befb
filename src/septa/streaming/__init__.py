"""Images of any size in a fixed memory budget: planned in blocks, segmented, merged, written as a store.

::

    plan        what is to be done, the same for every process and every run that goes on with it
    budget      how large blocks and tiles may be
    blocks      the two functions of a block: segment it, finish it
    block_file  what is kept of a block between the two
    events      what is asked of a run, and what it tells
    run         the workflow
    hands       who does the blocks: this process
    cluster     or others
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
