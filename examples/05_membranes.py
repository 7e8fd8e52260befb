# %% [markdown]
# # Membranes, as in the ISBI 2012 challenge
#
# In electron micrographs of neural tissue, thin dark membranes separate cells. A pixel is membrane or interior, but
# what counts are the regions: one gap in a membrane merges two cells. This notebook draws such images, trains with
# Dice and cross entropy, and measures what the challenge measured.
#
# The images of the challenge are not part of septa; `docs/presets.md` says how `septa reproduce isbi` uses them.

# %%
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

import septa
from septa.images import write_image, write_labels


def draw_membranes(side: int, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image, uint8 (Y, X), and its labels: 255 inside cells, 0 on membranes."""
    rng = np.random.default_rng(seed)
    wide = side + 64
    points = np.ones((wide, wide), bool)
    ids = np.zeros((wide, wide), np.int32)
    for number, (y, x) in enumerate(rng.integers(0, wide, (cells, 2)), start=1):
        points[y, x], ids[y, x] = False, number
    nearest_y, nearest_x = distance_transform_edt(points, return_distances=False, return_indices=True)
    bend = [gaussian_filter(rng.normal(size=(wide, wide)), 12) * 400 for _ in range(2)]
    grid = np.mgrid[:wide, :wide] + bend
    cells_yx = map_coordinates(ids[nearest_y, nearest_x], grid, order=0, mode="nearest")
    edges_yx = np.zeros_like(cells_yx, bool)
    for axis in (0, 1):
        edges_yx |= np.roll(cells_yx, 1, axis) != cells_yx
    away_yx = distance_transform_edt(~edges_yx)[32:-32, 32:-32]
    fade_yx = np.clip(0.6 + 14 * gaussian_filter(rng.normal(size=(side, side)), 12, mode="wrap"), 0.3, 1)
    dark_yx = np.exp(-((away_yx / 1.8) ** 2)) * fade_yx
    texture_yx = gaussian_filter(rng.normal(size=(side, side)), 1.2) * 60
    organelles_yx = gaussian_filter((rng.random((side, side)) < 0.0006).astype(float), 3) * -2200
    image_yx = 170 - 110 * dark_yx + texture_yx + organelles_yx + rng.normal(0, 12, (side, side))
    return np.clip(image_yx, 0, 255).astype(np.uint8), np.where(away_yx > 1, 255, 0).astype(np.uint8)


for folder, seeds in (("membranes", range(10)), ("membranes/held_out", range(100, 103))):
    for seed in seeds:
        image_yx, labels_yx = draw_membranes(256, 70, seed)
        write_image(Path(folder, "images", f"{seed:03}.png"), image_yx[None])
        write_labels(Path(folder, "labels", f"{seed:03}.png"), labels_yx)
septa.plot.grid([image_yx, labels_yx], titles=["image", "labels: interiors and membranes"], columns=2)

# %% [markdown]
# ## Dice and cross entropy, as components
#
# The tutorials add a binary cross entropy and a Dice loss. Both are functions of septa and take logits or
# probabilities.

# %%
import torch
from septa.losses import binary_cross_entropy, soft_dice

logits_bkyx = torch.randn(2, 1, 64, 64)
target_bkyx = (torch.rand(2, 1, 64, 64) > 0.5).float()
bce, dice = binary_cross_entropy(logits_bkyx, target_bkyx), soft_dice(logits_bkyx.sigmoid(), target_bkyx)
print(f"BCE {bce:.4f} + Dice {dice:.4f} = {bce + dice:.4f}")

# %% [markdown]
# In a recipe they are `loss.cross_entropy` and `loss.dice`. septa recognises interiors between thin walls, and tunes
# the threshold for regions rather than for pixels.

# %%
quick = ["training.steps=200", "net.width=8", "net.depth=3", "training.batch=4", "sampling.patch=[128, 128]"]
quick += ["loss.dice=1", "loss.cross_entropy=1"]
model = septa.train("membranes", "membranes.septa", overrides=quick, callback=septa.progress())
model

# %%
septa.plot.curves("membranes-run")

# %% [markdown]
# ## Look

# %%
from septa.images import draw_error_map, read_labels

paths = sorted(Path("membranes/held_out/images").glob("*.png"))
images = [septa.read_image(path) for path in paths]
truth = [(read_labels(path.parents[1] / "labels" / path.name).array > 0).astype(np.uint8) for path in paths]
found = model(images)
pictures = [
    picture
    for image_cyx, true_yx, found_yx in zip(images, truth, found)
    for picture in (image_cyx[0], true_yx, found_yx, draw_error_map(true_yx, found_yx))
]
septa.plot.grid(pictures, titles=["image", "ground truth", "prediction", "errors"])

# %% [markdown]
# Orange lines are membranes that were missed, blue ones were found where there are none.
#
# ## The scores of the challenge
#
# V-Rand and V-Info compare regions after the borders are thinned. A perfect membrane that is one pixel thicker costs
# nothing; a gap of one pixel that merges two cells costs a lot. Dice sees it the other way round.

# %%
evaluation = septa.evaluate(model, "membranes/held_out", extra=["neurites"])
scores = evaluation.neurites
print(f"Dice {evaluation.summary['dice']:.3f}, V-Rand {scores.v_rand:.3f}, V-Info {scores.v_info:.3f}")

# %%
from septa.metrics import score_neurites

true_yx = truth[0]
thick_yx = (distance_transform_edt(true_yx) > 1).astype(np.uint8)
gap_yx = true_yx.copy()
rows, columns = np.nonzero(true_yx == 0)
for y, x in list(zip(rows, columns))[:: len(rows) // 40]:
    gap_yx[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = 1
for name, found_yx in (("one pixel thicker", thick_yx), ("forty gaps", gap_yx)):
    print(
        f"{name}: Dice {2 * (found_yx & true_yx).sum() / (found_yx.sum() + true_yx.sum()):.3f}, "
        f"V-Rand {score_neurites(true_yx, found_yx.astype(bool)).v_rand:.3f}"
    )

# %% [markdown]
# ## Average over turned and mirrored versions
#
# The paper averaged seven versions of each image, which closes gaps. `tta=8` takes all eight, and eight times as
# long.

# %%
probabilities = [model.probabilities(images[0], tta=versions)[1] for versions in (1, 8)]
septa.plot.grid([images[0][0], *probabilities], titles=["image", "interior, one version", "eight versions"], columns=3)
