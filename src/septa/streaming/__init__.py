"""Segmentation of images of any size in a fixed memory budget: in blocks, which are merged and written into a store.

::

    run              the workflow, read from top to bottom
    identity         what identifies an image: its path, selection, and the files that hold it
    output           the output of a run and its work folder: what may be written, and what is there already
    events           the request of a run, and the events that it yields
    plan             everything that decides the result, fixed before the first block
    prescan          facts that need the whole image: normalisation, empty blocks
    budget           sizes of blocks and tiles that fit into the memory
    block_worker     model, image and engine of a process that segments blocks
    blocks           the two steps of a block: segment it, write it into the store
    block_file       the file of a block between these steps
    written_blocks   the list of blocks that are in the store
    object_facts     facts of the objects of a block that tables need
    measuring        the step that measures the objects of a block
    writing          the steps after the blocks: levels of the pyramid, tables
    object_files     tables and outlines of a store, written row by row
    executor         the interface of executors, and the one that uses this process
    dask_cluster     the executor that uses the workers of a Dask cluster
    dask_worker      the code that runs on these workers
    dask_connection  connections to Dask clusters
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
