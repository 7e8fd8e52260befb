"""The settings of a U-Net: one frozen value that a net keeps and is rebuilt from."""

from __future__ import annotations

from dataclasses import dataclass

from septa.nets.blocks import NORMS, UPS
from septa.nets.resnet import RESNET_LAYERS

PADDINGS = ("same", "valid")
BLOCKS = ("plain", "residual")
REDUCTIONS = (1, 2, 4, 8)


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
        Number of channels at full resolution.
    padding
        ``same``: the logits have the image's size. ``valid``: the convolutions have no padding, so the logits are
        `UNet.margin` pixels smaller on each side than the image.
    norm
        ``batch``, ``group`` (8 groups, or fewer if 8 does not divide the channels), ``instance`` or ``none``. Group and
        instance norms pool over the image, so that tiles differ from the whole image, see `UNet.exact_tiles`.
    up
        ``transpose`` (2x2 up-convolution) or ``bilinear``.
    dropout
        Probability of dropping a value at the end of the contracting path during training, at least 0 and below 1.
    reduction
        1, 2, 4 or 8. Above 1 the net works on the image downsampled by this factor (means of pixels), and its logits
        are upsampled bilinearly to the image's size. Objects that are large in pixels then fit into the receptive
        field, in a fraction of the time. Sizes, halo and receptive field remain in pixels of the image.
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
    padding: str = "same"
    norm: str = "batch"
    up: str = "transpose"
    dropout: float = 0.0
    reduction: int = 1
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
        if not self.encoder.startswith("timm:"):
            _check_choice("encoder", self.encoder, ("plain", *RESNET_LAYERS, "timm:NAME"))
        if self.padding == "valid":
            self._check_valid_padding()

    @property
    def block_options(self) -> dict[str, bool]:
        """Keyword arguments that every `septa.nets.ConvBlock` of the net is built with."""
        return {
            "valid": self.padding == "valid",
            "residual": self.block == "residual",
            "squeeze": self.squeeze,
        }

    def _check_valid_padding(self) -> None:
        for name, allowed in {"reduction": 1, "aspp": False, "encoder": "plain"}.items():
            value = getattr(self, name)
            if value != allowed:
                raise ValueError(
                    f"padding=valid and {name}={str(value).lower()} exclude each other; "
                    f"set padding=same or {name}={str(allowed).lower()}"
                )


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        listed = ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}"
        raise ValueError(f"{name} must be {listed}, got {value!r}")
