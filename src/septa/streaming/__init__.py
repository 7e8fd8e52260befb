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

from septa.streaming.events import Finished, Request, Started, Step
from septa.streaming.plan import Input
from septa.streaming.run import stream

__all__ = ["Finished", "Input", "Request", "Started", "Step", "stream"]
