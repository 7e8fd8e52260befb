"""The options of running a model, and the model that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from septa.cli.commands import INPUT, SPEED
from septa.cli.options import MAX_PIXELS, Device, MaxPixels, option
from septa.cli.values import choice, number, whole_number, word

if TYPE_CHECKING:
    from septa.model import Model


@dataclass(frozen=True, kw_only=True)
class NetOptions:
    """The options of running a model, which ``septa predict`` and ``septa evaluate`` share."""

    max_pixels: MaxPixels = MAX_PIXELS
    tile: Annotated[
        int | None,
        option(
            "--tile",
            heading=SPEED,
            kind=whole_number(least=1, example=512),
            help="Cut images into pieces of at most N x N pixels. The default fits most machines.",
        ),
    ] = None
    tta: Annotated[
        int | None,
        option(
            "--tta",
            heading=SPEED,
            kind=whole_number(least=1, most=8, example=4),
            help="Average the predictions for N rotated and mirrored versions of the image. The default is the "
            "recipe's.",
        ),
    ] = None
    diameter: Annotated[
        float | None,
        option(
            "--diameter",
            heading=INPUT,
            kind=number(above=0, example=40, metavar="N"),
            help="Typical diameter of the objects in pixels, by which a large image is reduced. The default measures "
            "it if the model needs it.",
        ),
    ] = None
    prune: Annotated[
        int | None,
        option(
            "--prune",
            heading=SPEED,
            kind=whole_number(least=1, example=2),
            help="Use only the first N levels of a U-Net++.",
        ),
    ] = None
    device: Device = "auto"
    engine: Annotated[
        str | None,
        option(
            "--engine",
            heading=SPEED,
            kind=word("NAME", "torch"),
            help="Library that runs the net: torch (also torch+bf16, torch+fp16, torch+compile), openvino, onnxruntime "
            "or auto (the fastest). The default is the model's own.",
        ),
    ] = None
    precision: Annotated[
        str | None,
        option(
            "--precision",
            heading=SPEED,
            kind=choice("float32", "bf16"),
            help="Number format of the net. The default is bf16 where it is faster and gives the same labels.",
        ),
    ] = None

    def load_model(self, file: Path) -> Model:
        """Load a model, and change it as the options say.

        Raises
        ------
        ModelError, InputError
            The file is not a model, or the model cannot be changed so.
        """
        from septa.model import Model

        model = Model.load(file)
        if self.prune is not None:
            model = model.prune(self.prune)
        return model if self.diameter is None else model.assume_diameter(self.diameter)
