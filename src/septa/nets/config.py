"""The settings of a U-Net: one frozen value that a net keeps and is rebuilt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from septa.nets.blocks import NORMS, UPS
from septa.nets.resnet import RESNET_LAYERS

PADDINGS = ("same", "valid")
BLOCKS = ("plain", "residual")
REDUCTIONS = (1, 2, 4, 8)
MAGNIFICATIONS = (1, 2)
_REMEDIES = {"padding": "padding=same", "odd_sizes": "odd_sizes=pad", "magnification": "magnification=1"}
HEAD_KERNELS = (1, 3)
ODD_SIZES = ("pad", "crop")


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Settings from which a `septa.nets.UNet` is built.

    Attributes
    ----------
    in_channels, out_channels
        Number of channels of the image and of the logits.
    depth
        Number of poolings, at least 1. An encoder other than ``plain`` has its own depth, and this one is ignored.
    width
        Number of channels at full resolution; they double at each level unless ``widths`` says otherwise.
    widths
        Number of channels of each level of the contracting path, full resolution first; None for
        ``width * 2**level``. There are ``depth`` + 1 of them, and the first is ``width``.
    decoder_widths
        The same for the expanding path, ``depth`` numbers; None for those of the contracting path.
    padding
        ``same``: the logits have the image's size. ``valid``: the convolutions have no padding, so the logits are
        `UNet.margin` pixels smaller on each side than the image.
    norm
        ``batch``, ``group`` (8 groups, or fewer if 8 does not divide the channels), ``instance`` or ``none``. Group and
        instance norms pool over the image, so that tiles differ from the whole image, see `UNet.exact_tiles`.
    up
        ``transpose`` (2x2 up-convolution), ``bilinear`` (1x1 convolution and interpolation), or ``aligned``:
        interpolation with aligned corners, without a convolution. Its weights depend on the size of the image, so that
        tiles differ from the whole image.
    dropout
        Probability of dropping a value at the end of the contracting path during training, at least 0 and below 1.
    reduction
        1, 2, 4 or 8. Above 1 the net works on the image downsampled by this factor (means of pixels), and its logits
        are upsampled bilinearly to the image's size. Objects that are large in pixels then fit into the receptive
        field, in a fraction of the time. Sizes, halo and receptive field remain in pixels of the image.
    magnification
        1 or 2. With 2 the net works on the bilinearly enlarged image, and its logits are means of its pixels, so that
        objects of few pixels get rims of half a pixel. It takes four times as long.
    bias
        True for biases in the convolutions of blocks even where a norm follows, which cancels them.
    head_kernel
        1 or 3: side of the kernel of the last convolution.
    odd_sizes
        What happens where a side of the image is not a multiple of ``2**depth``. ``pad``: the edge is repeated to the
        next multiple, and the logits are cropped. ``crop``: poolings drop the last row and column of an odd side, skip
        connections are cropped at the bottom and at the right to the size of the upsampled array, and the logits of the
        last rows and columns, at most ``2**depth - 1``, repeat those before them. The kept pixels stay aligned with the
        image. Against skip connections cropped at their centre they are shifted by half of what is cropped, at most
        ``(2**depth - 1) / 2`` pixels towards the bottom right.
    block
        ``plain`` or ``residual``, see `septa.nets.ConvBlock`.
    squeeze
        True for squeeze-and-excitation in every block. It pools over the image.
    attention
        True for attention gates on the skip connections, see `septa.nets.AttentionGate`.
    aspp
        True for atrous spatial pyramid pooling at the bottom, see `septa.nets.AtrousPyramid`.
    nested
        True for the nested skip connections of U-Net++.
    deep_supervision
        True for logits of every level of the expanding path during training (of all nodes (0, j) if ``nested``).
    encoder
        ``plain``, ``resnet18``, ``resnet34``, ``resnet50``, or ``timm:NAME`` for a network of the package timm.

    Raises
    ------
    ValueError
        A setting is out of its range, or two settings exclude each other.

    Examples
    --------
    >>> from dataclasses import replace
    >>> config = UNetConfig(in_channels=1, out_channels=2, width=32)
    >>> replace(config, depth=3).depth
    3
    >>> replace(config, dropout=1.5)
    Traceback (most recent call last):
    ValueError: dropout must be at least 0 and below 1, got 1.5
    """

    in_channels: int
    out_channels: int
    depth: int = 4
    width: int = 64
    widths: tuple[int, ...] | None = None
    decoder_widths: tuple[int, ...] | None = None
    padding: str = "same"
    norm: str = "batch"
    up: str = "transpose"
    dropout: float = 0.0
    reduction: int = 1
    magnification: int = 1
    bias: bool = False
    head_kernel: int = 1
    odd_sizes: str = "pad"
    block: str = "plain"
    squeeze: bool = False
    attention: bool = False
    aspp: bool = False
    nested: bool = False
    deep_supervision: bool = False
    encoder: str = "plain"

    def __post_init__(self) -> None:
        """Check the settings."""
        counts = (self.in_channels, self.out_channels, self.depth, self.width)
        if min(counts) < 1:
            numbers = ", ".join(map(str, counts))
            raise ValueError(f"in_channels, out_channels, depth and width must be at least 1, got {numbers}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        _check_choice("padding", self.padding, PADDINGS)
        _check_choice("norm", self.norm, NORMS)
        _check_choice("up", self.up, UPS)
        _check_choice("block", self.block, BLOCKS)
        _check_choice("reduction", self.reduction, REDUCTIONS)
        _check_choice("magnification", self.magnification, MAGNIFICATIONS)
        _check_choice("head_kernel", self.head_kernel, HEAD_KERNELS)
        _check_choice("odd_sizes", self.odd_sizes, ODD_SIZES)
        if self.magnification > 1:
            self._check_exclusions("magnification=2", {"reduction": 1, "padding": "same", "odd_sizes": "pad"})
        self._check_widths()
        if self.odd_sizes == "crop":
            self._check_exclusions("odd_sizes=crop", {"padding": "same", "attention": False, "encoder": "plain"})
        if not self.encoder.startswith("timm:"):
            _check_choice("encoder", self.encoder, ("plain", *RESNET_LAYERS, "timm:NAME"))
        if self.padding == "valid":
            self._check_exclusions("padding=valid", {"reduction": 1, "aspp": False, "encoder": "plain"})
            self._check_exclusions("padding=valid", {"up": "transpose" if self.up == "aligned" else self.up})

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Number of channels of each level of the contracting path, full resolution first."""
        return self.widths or tuple(self.width << level for level in range(self.depth + 1))

    @property
    def expanding_widths(self) -> tuple[int, ...]:
        """Number of channels of each level of the expanding path, full resolution first."""
        if self.decoder_widths is not None:
            return self.decoder_widths
        # Encoders of other networks have depths of their own, of which 8 is more than any.
        return self.widths or tuple(self.width << level for level in range(max(8, self.depth)))

    @property
    def block_options(self) -> dict[str, Any]:
        """Keyword arguments that every `septa.nets.ConvBlock` of the net is built with."""
        return {
            "valid": self.padding == "valid",
            "residual": self.block == "residual",
            "squeeze": self.squeeze,
            "bias": True if self.bias else None,
        }

    def _check_widths(self) -> None:
        for name, least in {"widths": self.depth + 1, "decoder_widths": self.depth}.items():
            given = getattr(self, name)
            if given is None:
                continue
            if len(given) != least or min(given) < 1:
                raise ValueError(f"{name} must be {least} numbers of at least 1 for depth={self.depth}, got {given}")
            if self.encoder != "plain":
                raise ValueError(f"{name} and encoder={self.encoder} exclude each other; set encoder=plain")
        if self.widths is not None and self.widths[0] != self.width:
            problem = f"widths begins with {self.widths[0]}, but width is {self.width}"
            raise ValueError(f"{problem}; set both, or widths=null")

    def _check_exclusions(self, chosen: str, needed: Mapping[str, object]) -> None:
        for name, allowed in needed.items():
            value = getattr(self, name)
            if value != allowed:
                raise ValueError(
                    f"{chosen} and {name}={str(value).lower()} exclude each other; "
                    f"set {_REMEDIES[chosen.partition('=')[0]]} "
                    f"or {name}={str(allowed).lower()}"
                )


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        listed = ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}"
        raise ValueError(f"{name} must be {listed}, got {value!r}")
