# %% [markdown]
# # Parts of septa in your own PyTorch loop
#
# Every part of septa is usable alone: the data with its augmentation, the net, the losses, exact tiles, the metrics.
# This loop is yours; replace any line.

# %%
import torch
from torch.utils.data import DataLoader

import septa
from septa.synthetic import write_dataset

_ = write_dataset("cells", "cells", 16, (256, 256), seed=0)

# %% [markdown]
# ## Data
#
# `septa.Dataset` reads the folder, checks it, splits it, normalises and augments. A sample depends on the seed, the
# epoch and its index alone, so the number of loader processes changes nothing.

# %%
settings = ["sampling.patch=[128, 128]", "net.width=8", "net.depth=3", "task=semantic"]
samples = septa.Dataset("cells", overrides=settings)
held_out = septa.Dataset("cells", overrides=settings, split="validation")
loader = DataLoader(samples, batch_size=4, shuffle=True, drop_last=True)
batch = next(iter(loader))
print({name: tuple(value.shape) for name, value in batch.items() if hasattr(value, "shape")})
septa.plot.panels(list(batch["image"][:2].numpy()), list(batch["target"][:2].numpy()))

# %% [markdown]
# ## Net, loss and loop
#
# The net is a `torch.nn.Module`, and the losses are functions of tensors.

# %%
torch.manual_seed(0)
net = septa.UNet(samples.in_channels, samples.out_channels, width=8, depth=3)
net = net.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
epochs = 20
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * len(loader))
history = []


def predict(image_cyx: torch.Tensor) -> torch.Tensor:
    """Return the probability of foreground, (1, Y, X)."""
    with torch.inference_mode():
        return net.eval()(image_cyx[None]).softmax(1)[0, 1:]


def validate() -> float:
    """Return the mean Dice of the held-out images."""
    scores = []
    for sample in held_out:
        found_yx, true_yx = predict(sample["image"])[0] > 0.5, sample["target"] == 1
        scores.append(2 * (found_yx & true_yx).sum().item() / (found_yx.sum() + true_yx.sum()).item())
    return sum(scores) / len(scores)


for epoch in range(epochs):
    samples.set_epoch(epoch)
    net.train()
    for batch in loader:
        logits_bkyx = net(batch["image"].to(memory_format=torch.channels_last))
        target_byx = batch["target"]
        entropy = septa.losses.cross_entropy(logits_bkyx, target_byx, weights_byx=batch.get("weights"))
        overlap = septa.losses.soft_dice(logits_bkyx.softmax(1)[:, 1:], (target_byx == 1)[:, None].float())
        loss = entropy + overlap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append({"step": float(len(history)), "loss": loss.item(), "lr": schedule.get_last_lr()[0]})
    if epoch % 4 == 3:
        history[-1]["score"] = validate()
print(
    f"{len(history)} steps, loss {history[0]['loss']:.3f} -> {history[-1]['loss']:.3f}, Dice {history[-1]['score']:.3f}"
)
septa.plot.curves(history)

# %% [markdown]
# ## Exact tiles
#
# `septa.tile_predict` runs any function tile by tile. With the halo of the net, tiles equal one pass over the whole
# image. PyTorch chooses other kernels for small windows, which changes the last bits here; tiles of at least
# `net.steady_side` pixels are equal to the last bit.

# %%
image_cyx = held_out[0]["image"]
whole_yx = predict(image_cyx)[0]
tiled_yx = septa.tile_predict(predict, image_cyx, net.halo, multiple=net.multiple, tile=128)[0]
print(f"largest difference between tiles and whole image: {(whole_yx - tiled_yx).abs().max():.1e}")

# %% [markdown]
# ## Metrics
#
# Metrics take integer arrays. Objects are the connected regions of the foreground here.

# %%
from septa.labels import label_components
from septa.metrics import score_objects

images, truth, found = [], [], []
for sample in held_out:
    images.append(sample["image"].numpy())
    truth.append((sample["target"] == 1).int().numpy())
    found.append((predict(sample["image"])[0] > 0.5).int().numpy())
for name, true_yx, found_yx in zip(held_out.names, truth, found):
    dice = 2 * (true_yx & found_yx).sum() / (true_yx.sum() + found_yx.sum())
    objects = score_objects(label_components(true_yx), label_components(found_yx))
    print(f"{name}: Dice {dice:.3f}, objects F1 at IoU 0.5 {objects.f1[0]:.3f}")
septa.plot.panels(images, truth, found, objects=False)

# %% [markdown]
# ## Back to septa
#
# A net that was trained here becomes a model: one file with the net, its normalisation and the meaning of its labels,
# for `septa predict`, stores of any size, and export.

# %%
model = samples.make_model(net)
model.save("own.septa")
septa.load("own.septa")
