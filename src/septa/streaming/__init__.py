"""Images of any size in a fixed memory budget: planned in blocks, segmented, merged, written as a store.

::

    plan     what is to be done, the same for every process and every run that goes on with it
    budget   how large blocks and tiles may be
    blocks   the two functions of a block: segment it, finish it
    run      the workflow on one machine
    cluster  the same blocks on many
"""

from septa.streaming.plan import Input
from septa.streaming.run import Finished, Request, Started, Step, stream

__all__ = ["Finished", "Input", "Request", "Started", "Step", "stream"]
