"""The model: net, task, normalisation, recipe and provenance in one file that is never unpickled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from septa import tensor_file
from septa.errors import InputError, ModelError, RecipeError
from septa.images import Normalization, as_cyx, cut_mirrored, fit_channels, read_image, resize_image, write_bytes
from septa.inference import (
    SYMMETRIES,
    CoreConsumer,
    Engine,
    ImageTile,
    Int8,
    apply_symmetry,
    make_engine,
    parse_modes,
    plan_tiles_for,
    predict_tiles,
    smallest_tile_for,
    undo_symmetry,
)
from septa.labels import LabelMapping
from septa.nets import UNet
from septa.recipe import Recipe
from septa.runtime import pick_device
from septa.tasks import Decoding, Task, make_task

KIND = "septa model 1"
_NOT_A_MODEL = "give a .septa file written by 'septa train'"


def build_net(recipe: Recipe, channels: int, outputs: int) -> UNet:
    """The net of a recipe, with fresh weights from torch's current random state.

    Raises
    ------
    RecipeError
        Its settings exclude each other.
    """
    try:
        return UNet(channels, outputs, **recipe.net.model_dump(exclude={"output", "pretrained"}))
    except ValueError as error:
        raise RecipeError("recipe", f"net: {error}", "change one of them") from None


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Options that `Model.segment`, `Model.logits` and `Model.probabilities` share.

    Attributes
    ----------
    tile
        Largest side of a tile, pixels; chosen from the memory if None. Does not change the result.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Ignored if ``engine`` is an `Engine`.
    tta
        Number of rotated and mirrored versions of the image over which probabilities are averaged, 1 to 8; the
        recipe's if None.
    engine
        ``torch``, ``openvino``, ``onnxruntime``, ``auto`` (the fastest that agrees with torch), or ``torch+bf16`` and
        others that `septa.inference.make_engine` lists; or an engine that `Model.engine` has made, which can be used
        for many images. `Model.own_engine` chooses if None.
    """

    tile: int | None = None
    device: str = "auto"
    tta: int | None = None
    engine: str | Engine | None = None


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
    decoding
        For instances, how objects are found in the net's output.
    int8
        The net in 8-bit integers as well, if it was quantised.

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
    decoding: Decoding = field(default_factory=Decoding)
    int8: Int8 | None = None

    @property
    def task(self) -> Task:
        """What the net's output means."""
        return make_task(self.recipe, self.labels, self.decoding)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 (hex) of the weights alone: equal for equal weights, whenever and wherever they were trained."""
        return tensor_file.digest_tensors(self.net.state_dict())

    # --- segmenting -------------------------------------------------------------------------------------------------

    def segment(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
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
        tta
            Rotated and mirrored versions of the image over which probabilities are averaged, 1 to 8; the recipe's
            when not given.
        engine
            ``torch``, ``openvino``, ``onnxruntime`` or ``auto``, the fastest that agrees with torch; ``torch+bf16`` and
            the like, see `make_engine`; or one made by `engine`, which need not be made again for each image. When not
            given, `own_engine`.

        Returns
        -------
        ndarray
            Labels ``(Y, X)``, int32: class indices; where classes overlap, bit fields (bit k for class k); for the
            instances task, object ids 1..n.

        Raises
        ------
        InputError
            The image cannot be read or does not fit the model.
        ResourceError
            Memory does not suffice for a tile.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine)
        return self.compute_labels(self._read_input(image), options)

    def logits(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
    ) -> NDArray[np.float32]:
        """Raw scores ``(K, Y, X)``, float32, one plane for each output of the net; parameters and errors as for
        `segment`. Averaged probabilities come as the logits that give them.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine)
        return self.compute_logits(self._read_input(image), options)

    def probabilities(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
    ) -> NDArray[np.float32]:
        """Class probabilities ``(K, Y, X)`` in [0, 1], float32; parameters and errors as for `segment`."""
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine)
        return self.task.probabilities(self.compute_logits(self._read_input(image), options))

    def compute_labels(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.int32]:
        """Compute labels as `segment` does, of an image ``CYX`` that `as_model_input` has returned."""
        task = self.task
        if not task.tilewise or self._count_versions(options.tta) > 1 or self.recipe.data.resize:
            return task.decode(self.compute_logits(image_cyx, options))
        labels_yx = np.empty(image_cyx.shape[1:], np.int32)

        def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
            labels_yx[core] = task.decode(logits_kyx)

        self.run(image_cyx, keep, options)
        return labels_yx

    def compute_logits(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.float32]:
        """Compute logits as `logits` does, of an image ``CYX`` that `as_model_input` has returned."""
        size = image_cyx.shape[1:]
        inner_cyx = resize_image(image_cyx, self.recipe.data.resize or size)
        versions = self._count_versions(options.tta)
        options = replace(options, engine=self.engine(options.device, options.engine))
        if versions == 1:
            return resize_image(self._assemble_logits(inner_cyx, options), size)
        sum_kyx: NDArray[np.float32] | None = None
        for index in range(versions):
            logits_kyx = self._assemble_logits(apply_symmetry(inner_cyx, index), options)
            part_kyx = undo_symmetry(self.task.activations(logits_kyx), index)
            sum_kyx = part_kyx if sum_kyx is None else sum_kyx + part_kyx
        assert sum_kyx is not None
        return resize_image(self.task.as_logits(sum_kyx * np.float32(1 / versions)), size)

    def _count_versions(self, tta: int | None) -> int:
        versions = self.recipe.inference.tta if tta is None else tta
        if not 1 <= versions <= SYMMETRIES:
            raise InputError(f"--tta {versions}", f"is not 1 to {SYMMETRIES}", "8 are all symmetries of the square")
        return versions

    def _assemble_logits(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.float32]:
        out_kyx = np.empty((self.net.out_channels, *image_cyx.shape[1:]), np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
            out_kyx[(slice(None), *core)] = logits_kyx

        self.run(image_cyx, keep, options)
        return out_kyx

    def run(self, image_cyx: NDArray[Any], consume: CoreConsumer, options: PredictionOptions) -> None:
        """Pass the logits of each core of an image ``CYX`` to ``consume``, at the size that the net reads."""
        _, height, width = image_cyx.shape
        tiles = self._tiles(height, width, options.tile)
        normalization = self.normalization.resolve(image_cyx)
        read = partial(cut_mirrored, image_cyx)
        predict_tiles(self.engine(options.device, options.engine), read, normalization, tiles, consume)

    def plan(self, height: int, width: int, tile: int | None = None) -> list[ImageTile]:
        """Tiles for an image of this size.

        Raises
        ------
        InputError
            ``tile`` has no room for a core beside the net's halo.
        """
        return self._tiles(*(self.recipe.data.resize or (height, width)), tile)

    def _tiles(self, height: int, width: int, tile: int | None) -> list[ImageTile]:
        self.check_tile(tile)
        return plan_tiles_for(self.net, height, width, tile)

    def check_tile(self, tile: int | None) -> None:
        """Check that a tile has room for a core and the halo of the net; None is accepted.

        Raises
        ------
        InputError
            The tile is too small.
        """
        least = smallest_tile_for(self.net)
        if tile is not None and tile < least:
            problem = f"a tile of this net must be at least {least} pixels, got {tile}"
            raise InputError("--tile", problem, f"Give --tile {least} or more")

    def as_written(self, labels_yx: NDArray[np.int32]) -> NDArray[Any]:
        """Labels as they are written to disk: object ids, or the raw values that the training labels had."""
        return self.task.to_raw(labels_yx, self.labels)

    def prune(self, depth: int) -> Model:
        """The smaller model of the first ``depth`` levels of a U-Net++ with deep supervision; weights are shared.

        Raises
        ------
        InputError
            This net cannot be pruned so.
        """
        try:
            net = self.net.prune(depth)
        except ValueError as error:
            remedy = "give another depth, or train with net.nested and net.deep_supervision"
            raise InputError(f"--prune {depth}", str(error), remedy) from None
        kept = [f"net.depth={depth}", "net.deep_supervision=false", f"net.aspp={str(net.aspp is not None).lower()}"]
        return replace(self, net=net, recipe=self.recipe.with_overrides(kept), int8=None)

    def _read_input(self, image: NDArray[Any] | str | PathLike[str]) -> NDArray[Any]:
        if isinstance(image, str | PathLike):
            return self.as_model_input(read_image(Path(image)), image)
        return self.as_model_input(as_cyx(np.asarray(image), self.channels), "image")

    def as_model_input(self, image_cyx: NDArray[Any], where: str | PathLike[str]) -> NDArray[Any]:
        """Return an image with as many channels as this model has, after a check that the net can process it.

        Idempotent: an image that this function returned is returned unchanged.

        Parameters
        ----------
        image_cyx
            Raw values ``CYX`` of any real dtype.
        where
            Path that errors name, or ``image``.

        Returns
        -------
        ndarray
            Raw values ``CYX``, of the same dtype: the image itself, its single channel repeated, or the first of three
            equal channels. May be a read-only view.

        Raises
        ------
        InputError
            The number of channels does not fit, the image has no pixels, or a value is NaN or Inf.
        """
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

    def engine(self, device: str = "auto", engine: str | Engine | None = None) -> Engine:
        """What executes the net; an engine that is made already is given back. Errors as for `make_engine`."""
        if engine is not None and not isinstance(engine, str):
            return engine
        engine = engine or self.own_engine(device)
        key = (
            ""
            if parse_modes(engine) is not None
            else f"{self.weights_sha256} {self.recipe.net.model_dump_json()} {self.channels}"
        )
        return make_engine(self.net, pick_device(device), engine, key=key, int8=self.int8)

    def own_engine(self, device: str = "auto") -> str:
        """The engine where none is asked for: ``openvino`` on a CPU if the model is quantised, else ``torch``."""
        return "openvino" if self.int8 is not None and pick_device(device).type == "cpu" else "torch"

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
            data = tensor_file.pack(
                KIND, self._header(), {**self.net.state_dict(), **({} if self.int8 is None else self.int8.tensors())}
            )
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
            "decoding": self.decoding.to_json(),
            **({} if self.int8 is None else {"int8": self.int8.to_json()}),
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
        return cls.from_bytes(cls.read(path), path)

    @staticmethod
    def read(path: str | PathLike[str]) -> bytes:
        """The bytes of a model file, not looked at; ModelError where it cannot be read."""
        try:
            return Path(path).read_bytes()
        except OSError as error:
            reason = (error.strerror or "an error").lower()
            raise ModelError(path, f"cannot be read ({reason})", _NOT_A_MODEL) from None

    @classmethod
    def from_bytes(cls, data: bytes, path: str | PathLike[str]) -> Model:
        """As `load`, from the bytes of the file; ``path`` is for messages."""
        header, tensors = tensor_file.unpack(data, KIND, path)
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
            net = build_net(recipe, channels, make_task(recipe, labels).outputs)
        int8 = Int8.from_tensors(header["int8"], tensors) if "int8" in header else None
        wanted = {name: tensor.dtype for name, tensor in net.state_dict().items()}
        net.load_state_dict(tensors, strict=True, assign=True)
        if wrong := [name for name, tensor in tensors.items() if tensor.dtype != wanted[name]]:
            raise ValueError(f"'{wrong[0]}' is {tensors[wrong[0]].dtype}, not {wanted[wrong[0]]}")
        normalization = Normalization.from_json(header["normalization"])
        decoding = Decoding.from_json(header["decoding"]) if "decoding" in header else Decoding()
        net = net.eval().requires_grad_(False)
        return cls(net, channels, labels, normalization, recipe, header["provenance"], decoding, int8)

    def with_provenance(self, **facts: Any) -> Model:
        """The same model with more facts in its provenance (JSON values)."""
        return replace(self, provenance={**self.provenance, **facts})
