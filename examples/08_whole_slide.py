# %% [markdown]
# # A whole slide in one gigabyte, and on a Dask cluster
#
# Images of gigapixels do not fit into memory, and neither do their labels. septa reads and writes them block by
# block, within a memory limit that you choose. Objects that several blocks share are joined exactly: the result does
# not depend on the blocks, nor on the number of workers, except for the numbers of the objects.
#
# The slide here has 3072 x 3072 pixels, so that the notebook ends in minutes. The commands are the same for a hundred
# times as many. The model is `nuclei`, which septa ships.

# %%
import numpy as np
import zarr

import septa
from septa.synthetic import draw_cells

model = septa.load("nuclei")
model

# %% [markdown]
# ## Draw a slide
#
# One large drawing is repeated, so that drawing takes seconds. The file is an OME-Zarr image: an array in chunks,
# with its axes and its pixel size.

# %%
field_yx = draw_cells(1024, 1024, seed=7, diameter=20).image_cyx[0]
side = 3072
group = zarr.open_group("slide.ome.zarr", mode="w", zarr_format=3)
array = group.create_array("0", shape=(side, side), chunks=(512, 512), dtype="uint16")
for top in range(0, side, 1024):
    for left in range(0, side, 1024):
        array[top : top + 1024, left : left + 1024] = np.roll(field_yx, (top // 7, left // 5), (0, 1))
scale = {"type": "scale", "scale": [0.5, 0.5]}
axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
dataset = {"path": "0", "coordinateTransformations": [scale]}
group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset], "name": "slide"}]}
print(array.shape, array.dtype, "in chunks of", array.chunks)

# %% [markdown]
# ## Segment it in one gigabyte
#
# If the command is interrupted, the same command continues it.

# %%
# !septa predict nuclei slide.ome.zarr -o labels.ome.zarr --memory 1GB

# %%
labels = zarr.open_group("labels.ome.zarr", mode="r")
stored = labels["labels/nuclei/0"]  # the level of full resolution
count = max(int(stored[top : top + 512].max()) for top in range(0, side, 512))
print(stored.shape, stored.dtype, count, "objects")
window = np.s_[1200:1600, 1400:1800]
septa.plot.panels(array[window], predictions=stored[window].astype(np.int32), size=4)

# %% [markdown]
# ## Many processes
#
# `--workers 2` starts a Dask cluster on this machine, and `--cluster tcp://host:8786` uses one that is running. The
# objects are the same, pixel by pixel. Only their numbers follow the order of the blocks, whose size depends on the
# memory of each process.

# %%
# !septa predict nuclei slide.ome.zarr -o shared.ome.zarr --memory 1GB --workers 2

# %%
other = zarr.open_group("shared.ome.zarr", mode="r")["labels/nuclei/0"]
strips = [(stored[top : top + 512].astype(np.uint64), other[top : top + 512]) for top in range(0, side, 512)]
pairs = np.unique(np.concatenate([np.unique((one << 32) + two) for one, two in strips]))
equal = pairs.size == count + 1 == np.unique(pairs >> 32).size == np.unique(pairs & 0xFFFFFFFF).size
print("each object of one process is one object of the cluster, with the same pixels:", equal)
assert equal

# %% [markdown]
# ## Lazy arrays
#
# A model takes arrays of zarr and dask, and returns labels that are computed when they are asked for. Only the blocks
# that a part needs are segmented.

# %%
lazy = model(array)
lazy

# %%
part = lazy[1200:1600, 1400:1800].compute()
septa.plot.panels(array[window], predictions=part, size=4)
