"""The model: net, task, normalisation, recipe and provenance in one file that is never unpickled.

The file is long because one class stands in it, where net, task, normalisation and file format meet.
"""

from __future__ import annotations

import stat
import warnings
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
from septa.errors import InputError, ModelError, OutOfMemory, RecipeError, SeptaWarning, format_count
from septa.images import (
    Normalization,
    TrainingValues,
    ValueCheck,
    as_cyx,
    check_magnitude,
    cut_mirrored,
    fit_channels,
    measure_values,
    read_image,
    resize_image,
    write_bytes,
)
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
from septa.notices import Notices
from septa.recipe import Recipe
from septa.runtime import pick_device
from septa.tasks import Decoding, Task, make_task

KIND = "septa model 1"
_EQUAL_CHANNELS = "the three equal channels are read as one"


def build_net(recipe: Recipe, channels: int, outputs: int) -> UNet:
    """Build the net of a recipe, with new weights from the current state of PyTorch's random generator.

    Parameters
    ----------
    recipe
        Settings, of which the section ``net`` is used.
    channels
        Number of channels of the image.
    outputs
        Number of channels of the logits.

    Raises
    ------
    RecipeError
        The settings exclude each other.
    """
    try:
        return UNet(channels, outputs, **recipe.net.model_dump(exclude={"output", "pretrained"}))
    except ValueError as error:
        problem, _, hint = str(error).partition("; ")
        remedy = hint[:1].upper() + hint[1:] or "Change the setting"
        raise RecipeError("recipe", f"the net cannot be built, because {problem}", remedy) from None


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Options that `Model.segment`, `Model.logits` and `Model.probabilities` share; `Model.segment` describes them.

    If ``fixed_tile`` is True, a tile that does not fit into the memory is an error; else it is halved. ``factor``
    multiplies the values of the image before they are normalised; see `Model.check_values`.
    """

    tile: int | None = None
    device: str = "auto"
    tta: int | None = None
    engine: str | Engine | None = None
    fixed_tile: bool = False
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained net with everything that it needs to segment images.

    Attributes
    ----------
    net
        Net from normalised images to logits.
    channels
        Number of channels of the images that it was trained on.
    labels
        Meaning of the values of label images.
    normalization
        Constants of the training images, or the rule that finds those of one image.
    recipe
        All settings of the training.
    provenance
        Digest of the training data, names and digests of the training and validation images, fingerprint, scores and
        versions.
    decoding
        Thresholds by which objects are found; used by the task ``instances`` only.
    int8
        The net in 8-bit integers in addition, if the model was quantised.
    training_values
        Values of the training images, with which other images are compared; None in models that lack them.

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
    training_values: TrainingValues | None = None

    @property
    def task(self) -> Task:
        """Task, which defines the meaning of the logits."""
        return make_task(self.recipe, self.labels, self.decoding)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 (hex) of the weights alone, which is the same for the same weights."""
        return tensor_file.digest_tensors(self.net.state_dict())

    @property
    def color(self) -> bool:
        """True if the three channels are a colour, so that grey images may be repeated to match.

        Models without this fact count as trained on colours if their images had three channels of 8 bits.
        """
        facts = self.provenance.get("fingerprint", {})
        return self.channels == 3 and bool(facts.get("color", facts.get("dtype", "uint8") == "uint8"))

    def describe_input(self) -> str:
        """Return the number of channels and the type of the training images, for example ``3 channels, uint8``."""
        dtype = self.provenance.get("fingerprint", {}).get("dtype")
        return format_count(self.channels, "channel") + (f", {dtype}" if dtype else "")

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

        A `septa.SeptaWarning` is issued if the image is unlike the training images, or if its values are rescaled
        because they have another bit depth; see `check_values`.

        Parameters
        ----------
        image
            Path, or array ``(Y, X)``, ``(C, Y, X)`` or ``(Y, X, C)`` of raw values like those of the training images.
            If both the first and the last axis have the model's number of channels, the first is C.
        tile
            Largest side of a tile, pixels; chosen from the memory if None. It does not change the result.
        device
            ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Not used if ``engine`` is an engine.
        tta
            Number of rotated and mirrored versions of the image over which probabilities are averaged, 1 to 8; the
            recipe's number if None.
        engine
            ``torch``, ``openvino``, ``onnxruntime``, ``auto`` (the fastest that agrees with torch) or another name that
            `septa.inference.make_engine` lists. An engine from `engine` can be used for many images. If None,
            `own_engine` chooses.

        Returns
        -------
        ndarray
            Labels ``(Y, X)``, int32: class indices, or bit fields (bit k for class k) where classes overlap, or object
            ids 1..n of the task ``instances``.

        Raises
        ------
        InputError
            The image cannot be read or does not fit the model, or an option is not valid.
        ResourceError
            The memory does not hold a tile.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine)
        return self.compute_labels(*self._prepare(image, options))

    def logits(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
    ) -> NDArray[np.float32]:
        """Compute the logits of one image of any size.

        Parameters and errors are those of `segment`.

        Returns
        -------
        ndarray
            Logits ``(K, Y, X)``, float32, one plane for each output of the net. With several versions (``tta``) they
            are the logits of the averaged probabilities.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine)
        return self.compute_logits(*self._prepare(image, options))

    def probabilities(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
    ) -> NDArray[np.float32]:
        """Compute the class probabilities of one image of any size.

        Parameters and errors are those of `segment`.

        Returns
        -------
        ndarray
            Probabilities ``(K, Y, X)`` in [0, 1], float32, one plane for each class.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine)
        return self.task.probabilities(self.compute_logits(*self._prepare(image, options)))

    def compute_labels(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.int32]:
        """Compute labels as `segment` does, for an image ``(C, Y, X)`` that `as_model_input` has returned."""
        task = self.task
        if not task.tilewise or self._count_versions(options.tta) > 1 or self.recipe.data.resize:
            return task.decode(self.compute_logits(image_cyx, options))
        labels_yx = np.empty(image_cyx.shape[1:], np.int32)

        def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
            labels_yx[core] = task.decode(logits_kyx)

        self.run(image_cyx, keep, options)
        return labels_yx

    def compute_logits(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.float32]:
        """Compute logits as `logits` does, for an image ``(C, Y, X)`` that `as_model_input` has returned."""
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
            problem = f"the number of versions must be 1 to {SYMMETRIES}, got {versions}"
            raise InputError("--tta", problem, f"Give --tta {SYMMETRIES} for all symmetries of the square")
        return versions

    def _assemble_logits(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.float32]:
        out_kyx = np.empty((self.net.out_channels, *image_cyx.shape[1:]), np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
            out_kyx[(slice(None), *core)] = logits_kyx

        self.run(image_cyx, keep, options)
        return out_kyx

    def run(self, image_cyx: NDArray[Any], consume: CoreConsumer, options: PredictionOptions) -> None:
        """Pass the logits of each core to ``consume``.

        Parameters
        ----------
        image_cyx
            Image ``(C, Y, X)`` that `as_model_input` has returned, resized as the recipe says.
        consume
            Function that receives each core.
        options
            Options; ``tta`` is not used.
        """
        _, height, width = image_cyx.shape
        tiles = self._tiles(height, width, options.tile)
        normalization = self.normalization.rescale(options.factor).resolve(image_cyx)
        read = partial(cut_mirrored, image_cyx)
        engine = self.engine(options.device, options.engine)
        largest = options.tile or max(max(np.subtract(tile.end, tile.begin)) for tile in tiles)
        while True:
            try:
                predict_tiles(engine, read, normalization, tiles, consume)
                return
            except (OutOfMemory, MemoryError):
                smaller = max(largest // 2, smallest_tile_for(self.net))
                if options.fixed_tile or smaller >= largest:
                    raise
            largest = smaller
            tiles = self._tiles(height, width, largest)

    def plan(self, height: int, width: int, tile: int | None = None) -> list[ImageTile]:
        """Plan the tiles of an image of this size.

        Parameters
        ----------
        height, width
            Size of the image, pixels; the tiles are those of the resized image if the recipe resizes.
        tile
            Largest side of a tile, pixels; chosen from the memory if None.

        Raises
        ------
        InputError
            The tile is too small for a core and the halo of the net.
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
        """Return labels as they are written to files: object ids, or the raw values of the training labels."""
        return self.task.to_raw(labels_yx, self.labels)

    def prune(self, depth: int) -> Model:
        """Return the model of the first ``depth`` levels of a U-Net++ with deep supervision.

        The weights are shared with this model.

        Raises
        ------
        InputError
            This net cannot be pruned to this depth.
        """
        try:
            net = self.net.prune(depth)
        except ValueError as error:
            remedy = "Give another depth, or train with net.nested and net.deep_supervision"
            raise InputError(f"--prune {depth}", str(error), remedy) from None
        kept = [f"net.depth={depth}", "net.deep_supervision=false", f"net.aspp={str(net.aspp is not None).lower()}"]
        return replace(self, net=net, recipe=self.recipe.with_overrides(kept), int8=None)

    def _prepare(
        self, image: NDArray[Any] | str | PathLike[str], options: PredictionOptions
    ) -> tuple[NDArray[Any], PredictionOptions]:
        """Read an image, compare it with the training images, and warn about what is assumed or suspected."""
        found, compared = Notices(), Notices()
        where = image if isinstance(image, str | PathLike) else "image"
        if isinstance(image, str | PathLike):
            image_cyx = read_image(Path(image), channels=self.channels, notices=found)
        else:
            image_cyx = as_cyx(np.asarray(image), self.channels)
        input_cyx = self.as_model_input(image_cyx, where)
        factor = self.find_factor(input_cyx, where, compared)
        for line in (*found.warnings(), *compared.lines()):
            warnings.warn(line, SeptaWarning, stacklevel=3)
        return input_cyx, replace(options, factor=factor)

    def check_values(self, image_cyx: NDArray[Any]) -> ValueCheck:
        """Compare the values of an image with those of the training images.

        Values of another bit depth get the factor that leads to the training's, if exactly one does. Everything else
        is only reported: an image that holds nothing but noise or one value, a channel that does, inverted values, and
        values far from those of the training images. The scale of the values does not matter to a model that
        normalises each image by itself.

        Parameters
        ----------
        image_cyx
            An image ``(C, Y, X)`` that `as_model_input` has returned.

        Returns
        -------
        ValueCheck
            Factor for the values, and notices; 1 and none for a model that lacks the values of its training images.
        """
        if self.training_values is None:
            return ValueCheck()
        return self.training_values.compare(measure_values(image_cyx), scaled=self.normalization.kind == "image")

    def find_factor(self, image_cyx: NDArray[Any], where: str | PathLike[str], notices: Notices) -> float:
        """Return the factor of `check_values` for `PredictionOptions`, and add its notices about the file ``where``."""
        check = self.check_values(image_cyx)
        for notice in check.notices:
            notices.add(where, notice.text, notice.remedy, warning=notice.warning)
        return check.factor

    def as_model_input(
        self, image_cyx: NDArray[Any], where: str | PathLike[str], notices: Notices | None = None
    ) -> NDArray[Any]:
        """Adapt an image to the number of channels of this model, and check that the net can process it.

        An image that this function has returned is returned unchanged.

        Parameters
        ----------
        image_cyx
            Raw values ``(C, Y, X)`` of any real dtype.
        where
            Path that errors name, or ``image``.
        notices
            Receives a note if the channels are repeated or merged.

        Returns
        -------
        ndarray
            Raw values ``(C, Y, X)`` of the same dtype: the image itself, its single channel repeated if the model's
            three are a colour, or the first of three equal channels. It may be a read-only view.

        Raises
        ------
        InputError
            The number of channels does not fit, the image has no pixels, or a value is NaN, Inf or beyond float32.
        """
        try:
            input_cyx: NDArray[Any] = fit_channels(image_cyx, self.channels, self.color)
        except ValueError:
            found = format_count(image_cyx.shape[0], "channel")
            problem = f"the image has {found}, but the model was trained on {self.channels}"
            remedy = f"Give images with the {self.channels} channels of the training images, in the same order"
            if self.channels == 1:
                remedy = "Give images with one channel, or choose one with --channels and a store as output"
            raise InputError(where, problem, remedy) from None
        if notices is not None and len(image_cyx) != self.channels:
            grey = len(image_cyx) == 1
            notices.add(where, "the grey image is repeated in red, green and blue" if grey else _EQUAL_CHANNELS)
        if input_cyx.size == 0:
            raise InputError(where, "the image has no pixels", "Give an image of at least 1 x 1 pixels")
        if input_cyx.dtype.kind == "f" and not np.isfinite(input_cyx).all():
            raise InputError(where, "the image holds NaN or Inf", "Replace these pixels")
        check_magnitude(input_cyx, where)
        return input_cyx

    def engine(self, device: str = "auto", engine: str | Engine | None = None) -> Engine:
        """Make an engine that runs the net; an existing engine is returned unchanged.

        Errors are those of `septa.inference.make_engine`.
        """
        if engine is not None and not isinstance(engine, str):
            return engine
        name = engine or self.own_engine(device)
        runs_torch = parse_modes(name) is not None
        key = "" if runs_torch else f"{self.weights_sha256} {self.recipe.net.model_dump_json()} {self.channels}"
        return make_engine(self.net, pick_device(device), name, key=key, int8=self.int8)

    def own_engine(self, device: str = "auto") -> str:
        """Return the name of the default engine: ``openvino`` on a CPU if the model is quantised, else ``torch``."""
        return "openvino" if self.int8 is not None and pick_device(device).type == "cpu" else "torch"

    # --- one file ---------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file, whole or not at all.

        Raises
        ------
        ModelError
            A weight is NaN or Inf.
        ResourceError
            The disk is full.
        """
        int8_tensors = {} if self.int8 is None else self.int8.tensors()
        try:
            data = tensor_file.pack(KIND, self._make_header(), {**self.net.state_dict(), **int8_tensors})
        except ValueError as error:
            problem = f"the model is not written, because {error}"
            raise ModelError(path, problem, "Train with a smaller training.lr") from None
        write_bytes(Path(path), data)

    def _make_header(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "labels": self.labels.to_json(),
            "normalization": self.normalization.to_json(),
            "recipe": self.recipe.model_dump(mode="json"),
            "task": self.recipe.task,
            "decoding": self.decoding.to_json(),
            **({} if self.int8 is None else {"int8": self.int8.to_json()}),
            **({} if self.training_values is None else {"training_values": self.training_values.to_json()}),
            "provenance": {**self.provenance, "weights_sha256": self.weights_sha256},
        }

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Model:
        """Read a model from a file, without executing code from it.

        Raises
        ------
        ModelError
            The file is missing, is not a septa model, is damaged, or was changed after it was written.
        """
        return cls.from_bytes(cls.read(path), path)

    @staticmethod
    def read(path: str | PathLike[str]) -> bytes:
        """Return the bytes of a model file; ModelError if it cannot be read."""
        remedy = "Give a .septa file written by 'septa train'"
        try:
            if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe or a device could be endless
                raise ModelError(path, "the path is not a regular file", remedy)
            return Path(path).read_bytes()
        except OSError as error:
            reason = (error.strerror or "an error").lower()
            raise ModelError(path, f"the file cannot be read ({reason})", remedy) from None
        except ValueError:
            raise ModelError(path, "the file cannot be read (its path contains a null character)", remedy) from None

    @classmethod
    def from_bytes(cls, data: bytes, path: str | PathLike[str]) -> Model:
        """Build a model from the bytes of a file; errors are those of `load` and name ``path``."""
        header, tensors = tensor_file.unpack(data, KIND, path)
        problem = "the model does not fit this version of septa"
        try:
            return cls._build(header, tensors)
        except InputError as error:  # the recipe or the weights, in septa's words
            raise ModelError(path, f"{problem}: {error.problem}", "Update septa") from None
        except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError):
            raise ModelError(path, problem, "Update septa") from None

    @classmethod
    def _build(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
        recipe = Recipe.parse(header["recipe"])
        labels = LabelMapping.from_json(header["labels"])
        channels = header["channels"]
        if type(channels) is not int:
            raise TypeError(f"channels must be an integer, got {channels!r}")
        with torch.device("meta"):  # no memory is taken before the sizes are compared with the tensors
            net = build_net(recipe, channels, make_task(recipe, labels).outputs)
        int8 = Int8.from_tensors(header["int8"], tensors) if "int8" in header else None
        _check_weights(net, tensors)
        normalization = Normalization.from_json(header["normalization"])
        if normalization.kind == "dataset" and len(normalization.offset) != channels:
            problem = f"the normalisation is for {len(normalization.offset)} channels, not {channels}"
            raise InputError("normalization", problem)
        values = TrainingValues.from_json(header["training_values"]) if "training_values" in header else None
        if values is not None and values.channels != channels:
            raise InputError(
                "training_values", f"the training values are for {values.channels} channels, not {channels}"
            )
        _check_provenance(header["provenance"])
        net.load_state_dict(tensors, strict=True, assign=True)
        return cls(
            net=net.eval().requires_grad_(False),
            channels=channels,
            labels=labels,
            normalization=normalization,
            recipe=recipe,
            provenance=header["provenance"],
            decoding=Decoding.from_json(header["decoding"]) if "decoding" in header else Decoding(),
            int8=int8,
            training_values=values,
        )

    def with_provenance(self, **facts: Any) -> Model:
        """Return the same model with more facts (JSON values) in its provenance."""
        return replace(self, provenance={**self.provenance, **facts})


def _check_weights(net: UNet, tensors: dict[str, Tensor]) -> None:
    """Check that tensors have the names, shapes and dtypes of a net's weights; InputError if they differ."""
    expected = net.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError("weights", f"the weight '{missing[0]}' is missing")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise InputError("weights", f"the weight '{unknown[0]}' does not belong to the net")
    for name, tensor in tensors.items():
        shape, dtype = expected[name].shape, expected[name].dtype
        if tensor.shape != shape:
            raise InputError("weights", f"the shape of '{name}' is {tuple(tensor.shape)}, not {tuple(shape)}")
        if tensor.dtype != dtype:
            raise InputError("weights", f"the weight '{name}' is {tensor.dtype}, not {dtype}")
        if dtype.is_floating_point and not torch.isfinite(tensor).all():
            raise InputError("weights", f"the weight '{name}' holds NaN or Inf")
        if name.endswith("running_var") and (tensor < 0).any():
            raise InputError("weights", f"the variance '{name}' is negative")


def _check_provenance(provenance: Any) -> None:
    """Check the types of the facts that septa itself reads; InputError if they differ."""
    if not isinstance(provenance, dict):
        raise InputError("provenance", "the provenance is not a JSON object")
    for key in ("train", "validation"):
        images = provenance.get(key, [])
        if not isinstance(images, list) or not all(_is_named_digest(entry) for entry in images):
            raise InputError("provenance", f"the {key} images of the provenance are not pairs of a name and a digest")
    parts = provenance.get("parts", [])
    if not isinstance(parts, list) or not all(_is_cut_image(entry) for entry in parts):
        raise InputError("provenance", "the parts of the provenance are not a digest and two windows each")


def _is_cut_image(entry: Any) -> bool:
    def is_window(window: Any) -> bool:
        numbers = isinstance(window, list | tuple) and len(window) == 4 and all(type(end) is int for end in window)
        return numbers and 0 <= window[0] < window[2] and 0 <= window[1] < window[3]

    one_each = isinstance(entry, list | tuple) and len(entry) == 3 and isinstance(entry[0], str)
    return one_each and all(map(is_window, entry[1:]))


def _is_named_digest(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
