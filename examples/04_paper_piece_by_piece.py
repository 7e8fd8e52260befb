# %% [markdown]
# # The method of the U-Net paper, piece by piece
#
# O. Ronneberger, P. Fischer and T. Brox, *U-Net: Convolutional Networks for Biomedical Image Segmentation* (2015),
# have four ideas beside the net: convolutions without padding, the overlap-tile strategy, a weight map that makes
# borders count, and elastic deformation. Each is one function of septa, shown here with a picture.
#
# `septa train DATA --preset paper` uses all of them together.

# %%
import numpy as np
import torch

import septa
from septa.synthetic import draw_cells

drawing = draw_cells(256, 256, seed=1, diameter=26)
image_cyx, labels_yx = drawing.image_cyx.astype(np.float32), drawing.labels_yx
septa.plot.panels(image_cyx, labels_yx)

# %% [markdown]
# ## 1. Valid convolutions
#
# Without padding each 3 x 3 convolution removes one pixel at every side. With a depth of 4, an input of 572 x 572
# pixels gives an output of 388 x 388, as in figure 1: 92 pixels are context at every side.

# %%
net = septa.UNet(1, 2, width=4, depth=4, padding="valid", norm="none").eval()
with torch.inference_mode():
    print("572 ->", net(torch.zeros(1, 1, 572, 572)).shape[-1], "pixels; margin", net.margin)

# %% [markdown]
# ## 2. The overlap-tile strategy
#
# Figure 2 of the paper: to predict the yellow square, the net needs the blue one. Where context lies outside the
# image, the image is mirrored.

# %%
from matplotlib import pyplot
from septa.images import cut_mirrored

window_cyx = cut_mirrored(image_cyx, (-92, -92), (128 + 92, 128 + 92))
figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
left.imshow(image_cyx[0], cmap="gray")
left.set_title("image")
right.imshow(window_cyx[0], cmap="gray", extent=(-92.5, 219.5, 219.5, -92.5))
right.set_title("window of the first tile, mirrored outside")
for axis in (left, right):
    axis.add_patch(pyplot.Rectangle((-0.5, -0.5), 128, 128, fill=False, edgecolor="yellow", linewidth=2))
_ = right.add_patch(pyplot.Rectangle((-92.5, -92.5), 312, 312, fill=False, edgecolor="deepskyblue", linewidth=4))

# %% [markdown]
# Tiles of a valid net equal the whole image, because each output pixel sees exactly its own context:

# %%
from septa.images import Normalization
from septa.inference import make_engine, plan_tiles_for, predict_tiles

engine = make_engine(net)
identity = Normalization("dataset", offset=(0.0,), scale=(1000.0,))


def predict(tile: int) -> np.ndarray:
    """Return the logits KYX of the image in tiles."""
    out_kyx = np.empty((2, *image_cyx.shape[1:]), np.float32)

    def keep(core: tuple[slice, slice], logits_kyx: np.ndarray) -> None:
        out_kyx[(slice(None), *core)] = logits_kyx

    tiles = plan_tiles_for(net, *image_cyx.shape[1:], tile)
    predict_tiles(engine, lambda begin, end: cut_mirrored(image_cyx, begin, end), identity, tiles, keep)
    print(f"tiles of at most {tile} x {tile} pixels: {len(tiles)}")
    return out_kyx


print("largest difference:", np.abs(predict(256) - predict(1024)).max())

# %% [markdown]
# ## 3. Touching cells: a ridge and the weight map
#
# A ridge of background, one pixel wide, separates cells that touch. Equation 2 gives pixels between two cells a high
# weight: w0 exp(-(d1 + d2)² / 2 sigma²), where d1 and d2 are the distances to the nearest and the second nearest
# cell.

# %%
from septa.losses import border_weights, cut_seams

ridged_yx = cut_seams(labels_yx)
weights_yx = border_weights(ridged_yx, w0=10, sigma=5)
crop = np.s_[150:250, 20:150]
septa.plot.grid(
    [drawing.image_cyx[0][crop], (ridged_yx > 0)[crop].astype(np.uint8), weights_yx[crop]],
    titles=["image", "target with ridges", "border weight map"],
    columns=3,
    size=4,
)

# %% [markdown]
# ## 4. Elastic deformation
#
# Random displacements on a coarse grid, Gaussian with a standard deviation of 10 pixels, interpolated bicubically
# (section 3.1). Image and labels are warped together; labels take the nearest pixel, so no new number arises.

# %%
from septa.data import warp_patch
from septa.images import draw_overlay
from septa.recipe import AugmentSettings

ruled_cyx = drawing.image_cyx.copy()
ruled_cyx[:, ::16] = ruled_cyx[:, :, ::16] = image_cyx.max()
only_elastic = AugmentSettings(
    elastic=10, elastic_grid=3, probability=1, rotate=0, flip=False, turn=False, scale=(1, 1)
)
warped = [
    warp_patch(ruled_cyx, labels_yx, (128, 128), (256, 256), only_elastic, np.random.default_rng(seed))
    for seed in range(2)
]
septa.plot.grid(
    [
        ruled_cyx[0],
        *(image[0].astype(np.uint16) for image, _ in warped),
        draw_overlay(np.zeros_like(image_cyx), labels_yx),
        *(draw_overlay(np.zeros_like(image_cyx), labels) for _, labels in warped),
    ],
    titles=["image with a grid", "deformed", "deformed again", "labels", "deformed", "deformed again"],
    columns=3,
)

# %% [markdown]
# ## All together
#
# The paper trained the full net for ten hours on a GPU. Batch norm, Adam, a falling learning rate and averaged weights
# came later; with them a narrow net learns the same task in a minute. All else is the paper's: valid convolutions,
# mirrored borders, elastic deformation, and a loss with the border weight map. The ridges between touching cells are
# one pixel wide and are learned last, so some cells remain merged, which the errors show in yellow.

# %%
from septa.presets import load_recipe
from septa.synthetic import write_dataset

_ = write_dataset("cells", "cells", 16, (256, 256), seed=1, held_out=2, diameter=26)
quick = ["net.width=8", "net.depth=3", "training.steps=500", "sampling.patch=[172, 172]", "training.batch=2"]
later = ["net.norm=batch", "training.optimizer=adam", "training.momentum=0.9", "training.schedule=cosine"]
later += ["training.lr=0.003", "training.ema=0.99", "net.dropout=0", "training.validations=5"]
model = septa.train(
    "cells", "paper.septa", recipe=load_recipe("paper"), overrides=[*quick, *later], callback=septa.progress()
)
model

# %%
from pathlib import Path

from septa.images import read_labels

paths = sorted(Path("cells/held_out/images").iterdir())
truth = [read_labels(path.parents[1] / "labels" / path.name).array.squeeze() for path in paths]
septa.plot.panels([septa.read_image(path) for path in paths], truth, model(paths))
