"""The model: net, task, normalisation, recipe and provenance in one file that is never unpickled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from septa import sealed
from septa.data.labels import LabelMapping
from septa.errors import InputError, ModelError, RecipeError
from septa.images.normalize import Normalization, fit_channels
from septa.images.read import read_image
from septa.images.write import write_bytes
from septa.inference.engines import Engine, torch_engine
from septa.inference.predict import predict_tiles
from septa.inference.tiling import Tile, activation_bytes, auto_tile, least_tile, plan
from septa.nets import UNet
from septa.recipe import Recipe
from septa.runtime import pick_device
from septa.tasks.semantic import Semantic

KIND = "septa model 1"
_NOT_A_MODEL = "give a .septa file written by 'septa train'"


def build_net(recipe: Recipe, channels: int, classes: int) -> UNet:
    """The net of a recipe, with fresh weights from torch's current random state."""
    return UNet(channels, classes, **recipe.net.model_dump(exclude={"family"}))


@dataclass(frozen=True)
class Model:
    """A trained net with everything that it needs to segment images.

    Attributes
    ----------
    net
        Logits from normalised images.
    channels
        Channels of the images that it was trained on.
    labels
        How classes stand for values in label images.
    normalization
        Constants of the training set, or the rule for one image.
    recipe
        Every setting of the training.
    provenance
        Training data digest, names and digests of the training and validation images, fingerprint, scores, versions.

    Examples
    --------
    >>> model = Model.load("cells.septa")  # doctest: +SKIP
    >>> labels_yx = model.segment("image.tif")  # doctest: +SKIP
    """

    net: UNet
    channels: int
    labels: LabelMapping
    normalization: Normalization
    recipe: Recipe
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Semantic:
        """What the net's output means."""
        return Semantic(self.labels.classes, multilabel=self.labels.kind == "multilabel")

    @property
    def weights_sha256(self) -> str:
        """SHA-256 (hex) of the weights alone: equal for equal weights, whenever and wherever they were trained."""
        return sealed.digest(self.net.state_dict())

    # --- segmenting -------------------------------------------------------------------------------------------------

    def segment(
        self, image: NDArray[Any] | str | PathLike[str], *, tile: int | None = None, device: str = "auto"
    ) -> NDArray[np.int32]:
        """Segment one image of any size.

        Parameters
        ----------
        image
            A path, or an array ``YX``, ``CYX`` or ``YXC`` in raw values as in the training images. Where both the
            first and the last axis have as many values as the model has channels, the first is C.
        tile
            Largest side of a tile, pixels; chosen from the memory when not given. Does not change the result.
        device
            ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

        Returns
        -------
        ndarray
            Labels ``(Y, X)``, int32: class indices; where classes overlap, bit fields (bit k for class k).

        Raises
        ------
        InputError
            The image cannot be read or does not fit the model.
        ResourceError
            Memory does not suffice for a tile.
        """
        image_cyx = self.prepare(image)
        labels_yx = np.empty(image_cyx.shape[1:], np.int32)
        task = self.task

        def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
            labels_yx[core] = task.decode(logits_kyx)

        self._run(image_cyx, tile, device, keep)
        return labels_yx

    def logits(
        self, image: NDArray[Any] | str | PathLike[str], *, tile: int | None = None, device: str = "auto"
    ) -> NDArray[np.float32]:
        """Raw scores ``(K, Y, X)``, float32; parameters and errors as for `segment`."""
        image_cyx = self.prepare(image)
        out_kyx = np.empty((self.labels.classes, *image_cyx.shape[1:]), np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
            out_kyx[(slice(None), *core)] = logits_kyx

        self._run(image_cyx, tile, device, keep)
        return out_kyx

    def probabilities(
        self, image: NDArray[Any] | str | PathLike[str], *, tile: int | None = None, device: str = "auto"
    ) -> NDArray[np.float32]:
        """Class probabilities ``(K, Y, X)`` in [0, 1], float32; parameters and errors as for `segment`."""
        return self.task.probabilities(self.logits(image, tile=tile, device=device))

    def plan(self, height: int, width: int, tile: int | None = None) -> list[Tile]:
        """Tiles for an image of this size.

        Raises
        ------
        InputError
            ``tile`` has no room for a core beside the net's halo.
        """
        halo, multiple = self.net.halo, self.net.multiple
        if tile is None:
            per_pixel = activation_bytes(self.net.width, self.net.reduction)
            tile = auto_tile(halo=halo, multiple=multiple, bytes_per_pixel=per_pixel)
        if tile < least_tile(halo, multiple):
            least = least_tile(halo, multiple)
            raise InputError(
                f"--tile {tile}", f"is less than this net's halo needs ({halo} pixels a side)", f"give at least {least}"
            )
        return plan(height, width, halo=halo, multiple=multiple, tile=tile)

    def prepare(self, image: NDArray[Any] | str | PathLike[str]) -> NDArray[Any]:
        """An image as ``CYX`` with this model's channels, in raw values; errors as for `segment`."""
        if isinstance(image, str | PathLike):
            return self.fit(read_image(Path(image)), image)
        return self.fit(_as_cyx(np.asarray(image), self.channels), "image")

    def fit(self, image_cyx: NDArray[Any], where: str | PathLike[str]) -> NDArray[Any]:
        """Give an image ``CYX`` this model's channels; refuse what the net cannot take, naming ``where``."""
        try:
            fitted: NDArray[Any] = fit_channels(image_cyx, self.channels)
        except ValueError:
            has = f"has {image_cyx.shape[0]} channels, the model was trained on {self.channels}"
            raise InputError(where, has, "give images like those that the model was trained on") from None
        if fitted.size == 0:
            raise InputError(where, "has no pixels", "give an image of at least 1 x 1")
        if fitted.dtype.kind == "f" and not np.isfinite(fitted).all():
            raise InputError(where, "holds NaN or Inf", "replace these pixels")
        return fitted

    def engine(self, device: str = "auto") -> Engine:
        """What executes the net."""
        return torch_engine(self.net, pick_device(device))

    def _run(self, image_cyx: NDArray[Any], tile: int | None, device: str, consume: Any) -> None:
        _, height, width = image_cyx.shape
        tiles = self.plan(height, width, tile)
        predict_tiles(self.engine(device), image_cyx, self.normalization.resolve(image_cyx), tiles, consume)

    # --- one file ---------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model atomically.

        Raises
        ------
        ModelError
            A weight is NaN or Inf.
        ResourceError
            The disk is full.
        """
        try:
            data = sealed.pack(KIND, self._header(), self.net.state_dict())
        except ValueError as error:
            raise ModelError(path, f"not written: {error}", "train with a smaller training.lr") from None
        write_bytes(Path(path), data)

    def _header(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "labels": self.labels.to_json(),
            "normalization": self.normalization.to_json(),
            "recipe": self.recipe.model_dump(mode="json"),
            "task": self.recipe.task,
            "provenance": {**self.provenance, "weights_sha256": self.weights_sha256},
        }

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Model:
        """Read a model; no byte of it is executed.

        Raises
        ------
        ModelError
            The file is missing, no septa model, damaged or changed after it was written.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            reason = (error.strerror or "an error").lower()
            raise ModelError(path, f"cannot be read ({reason})", _NOT_A_MODEL) from None
        header, tensors = sealed.unpack(data, KIND, path)
        try:
            return cls._build(header, tensors)
        except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, RecipeError) as error:
            problem = " ".join(str(error).split())
            raise ModelError(path, f"does not fit this version of septa ({problem})", "update septa") from None

    @classmethod
    def _build(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
        recipe = Recipe.parse(header["recipe"])
        labels = LabelMapping.from_json(header["labels"])
        channels = int(header["channels"])
        with torch.device("meta"):  # sizes are checked against the tensors before any memory is taken
            net = build_net(recipe, channels, labels.classes)
        wanted = {name: tensor.dtype for name, tensor in net.state_dict().items()}
        net.load_state_dict(tensors, strict=True, assign=True)
        if wrong := [name for name, tensor in tensors.items() if tensor.dtype != wanted[name]]:
            raise ValueError(f"'{wrong[0]}' is {tensors[wrong[0]].dtype}, not {wanted[wrong[0]]}")
        normalization = Normalization.from_json(header["normalization"])
        return cls(net.eval().requires_grad_(False), channels, labels, normalization, recipe, header["provenance"])

    def with_provenance(self, **facts: Any) -> Model:
        """The same model with more facts in its provenance (JSON values)."""
        return replace(self, provenance={**self.provenance, **facts})


def _as_cyx(image: NDArray[Any], channels: int) -> NDArray[Any]:
    if image.dtype.kind not in "buif":
        raise InputError("image", f"has dtype {image.dtype}", "give integers or floats")
    if image.ndim == 2:
        return image[None]
    if image.ndim == 3 and image.shape[0] == channels:
        return image
    if image.ndim == 3 and image.shape[-1] == channels:
        return np.moveaxis(image, -1, 0)
    if image.ndim == 3 and image.shape[0] == 1:
        return image
    raise InputError(
        "image",
        f"has shape {image.shape}, expected YX, or CYX or YXC with {channels} channels",
        "move or pick its axes",
    )
