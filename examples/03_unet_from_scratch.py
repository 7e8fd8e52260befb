# %% [markdown]
# # The U-Net from scratch
#
# Forty lines of PyTorch are a whole U-Net. Then `septa.UNet` gets the same weights and gives the same output, and we
# see what it knows in addition: any image size, its receptive field, and exact tiles.
#
# Shapes are in the names: B batch, C channel, Y row, X column, K class.

# %%
import torch
from torch import nn


class Block(nn.Sequential):
    """Two 3 x 3 convolutions, each with batch norm and ReLU."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        layers: list[nn.Module] = []
        for channels in (fan_in, fan_out):
            layers += [nn.Conv2d(channels, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
        super().__init__(*layers)


class Scratch(nn.Module):
    """The U-Net: down with max pooling, up with 2 x 2 up-convolutions, and a skip connection at each level."""

    def __init__(self, channels: int, classes: int, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(Block(*pair) for pair in zip([channels, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * one, one, 2, stride=2) for one in widths[:-1])
        self.decoder = nn.ModuleList(Block(2 * one, one) for one in widths[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image_bcyx: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K, Y, X)."""
        skips, x = [], image_bcyx
        for level, block in enumerate(self.encoder):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(reversed(self.up), reversed(self.decoder)):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


# %% [markdown]
# ## The same net in septa
#
# The layers are in the same order, so the weights can be copied one after the other.

# %%
import septa

torch.manual_seed(0)
scratch = Scratch(1, 2).eval()
net = septa.UNet(1, 2, width=16, depth=4).eval()
net.load_state_dict(dict(zip(net.state_dict(), scratch.state_dict().values(), strict=True)))

image_bcyx = torch.randn(1, 1, 128, 160)
with torch.inference_mode():
    difference = (net(image_bcyx) - scratch(image_bcyx)).abs().max().item()
print(f"{sum(one.numel() for one in net.parameters()):,} parameters, largest difference {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# ## What a user meets next: sizes
#
# Four poolings halve the image four times, so the forty lines work for multiples of 16 only. septa repeats the edge
# inside the net and crops the output.

# %%
odd_bcyx = torch.randn(1, 1, 101, 77)
with torch.inference_mode():
    print("septa:", tuple(net(odd_bcyx).shape))
    try:
        scratch(odd_bcyx)
    except RuntimeError as error:
        print("scratch:", str(error)[:90])

# %% [markdown]
# ## The receptive field
#
# How far does one output pixel see? The gradient of one logit with respect to the image answers it, and septa
# computes the same number from the layers. A tile with this margin on each side, the *halo*, gives the result of the
# whole image.

# %%
probe_bcyx = torch.randn(1, 1, 256, 256, requires_grad=True)
net(probe_bcyx)[0, 0, 128, 128].backward()
reached_yx = probe_bcyx.grad[0, 0].abs()
rows = reached_yx.amax(dim=1).nonzero()
print(f"rows {rows.min().item()} to {rows.max().item()} reach the pixel in row 128; the halo is {net.halo}")
septa.plot.grid([(reached_yx + 1e-16).log10().numpy()], columns=1, titles=["influence, log10"], size=4)

# %% [markdown]
# ## Exact tiles
#
# `septa.tile_predict` cuts an image into tiles with this halo and runs any function on them. For a net, pass its
# `halo` and `multiple`. The tiles equal one pass over the whole image.

# %%
large_cyx = torch.randn(1, 700, 900)
with torch.inference_mode():
    whole_kyx = net(large_cyx[None])[0]
    tiled_kyx = septa.tile_predict(
        lambda window_cyx: net(window_cyx[None])[0], large_cyx, net.halo, multiple=net.multiple, tile=512
    )
largest = (whole_kyx - tiled_kyx).abs().max().item()
print(f"largest difference between tiles and whole image: {largest:.1e}")
assert largest < 1e-4

# %% [markdown]
# ## The family
#
# Other U-Nets are settings of the same class.

# %%
for name, settings in {
    "U-Net": {},
    "the paper's": {"padding": "valid", "norm": "none"},
    "bilinear": {"up": "bilinear"},
    "residual": {"block": "residual"},
    "attention": {"attention": True},
    "U-Net++": {"nested": True},
}.items():
    one = septa.UNet(1, 2, width=16, depth=4, **settings)
    print(f"{name:12} {sum(each.numel() for each in one.parameters()):>9,} parameters, halo {one.halo}")
