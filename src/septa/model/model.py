"""The model, in which net, task and normalisation meet.

The file is long because one class stands in it; the contracts of its public methods are a third of its lines.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa import tensor_file
from septa.errors import InputError, ModelError, SeptaWarning, format_count
from septa.images import (
    Normalization,
    TrainingValues,
    ValueCheck,
    as_cyx,
    measure_values,
    read_image,
    resize_image,
    write_bytes,
)
from septa.inference import (
    Averaging,
    CoreConsumer,
    Engine,
    FeatureSums,
    ImageTile,
    Int8,
    TrainingFeatures,
    compute_stamp,
    make_engine,
    parse_modes,
    reuse,
    scale_tile,
)
from septa.labels import ImageScale, LabelMapping
from septa.nets import Ensemble, UNet, list_members, reduce_net
from septa.notices import Notices
from septa.objects import ConfidenceCurve
from septa.progress_bar import ProgressCallback
from septa.recipe import Recipe
from septa.runtime import has_fast_bf16, pick_device
from septa.tasks import Decoding, Task, make_task

from .file import KIND, read_model_bytes, unpack_model
from .half import round_kernels, shrink_kernels
from .input import adapt_image
from .options import PredictionOptions
from .precision import BF16, Bf16Difference, apply_precision, refuse_precision
from .size import SizedModels, choose_scale, find_scale, is_measured, measure_diameter
from .tiles import check_tile, count_pixels, plan_model_tiles, run_tiles
from .unlike import cut_windows, measure_windows, report_distance
from .versions import average_versions, check_versions

_LOG = logging.getLogger("septa")
_UNMEASURED = ("data.largest=null", "instances.smallest=null", "instances.least_share=0", "instances.join_share=0")
"""Settings of a model whose images are not measured."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Model:
    """A trained net with everything that it needs to segment images.

    Attributes
    ----------
    net
        Net from normalised images to logits; or several, whose activations are averaged.
    channels
        Number of channels of the images that it was trained on.
    labels
        Meaning of the values of label images.
    normalization
        Constants of the training images, or the rule that finds those of one image.
    recipe
        All settings of the training.
    provenance
        Digest of the training data, names and digests of the training and validation images, sketches of the training
        images, fingerprint, scores and versions.
    decoding
        Thresholds by which objects are found; used by the task ``instances`` only.
    int8
        The net in 8-bit integers in addition, if the model was quantised.
    training_values
        Values of the training images, with which other images are compared; None in models that lack them.
    bf16
        Number of pixels of the validation images whose labels differ between bfloat16 and float32; None if that was not
        measured.
    training_features
        Features of the training images, with which other images are compared; None in models that lack them.
    confidence_curve
        Curve that calibrates the confidence of objects; used by the task ``instances`` only.
    source
        Path of the file that it was read from, or the name of a shipped model; empty for others. It is not saved.

    Examples
    --------
    >>> model = Model.load("cells.septa")  # doctest: +SKIP
    >>> labels_yx = model("image.tif")  # doctest: +SKIP
    >>> labels, confidence = (found := model.predict("image.tif")).labels, found.confidence  # doctest: +SKIP
    """

    net: UNet | Ensemble
    channels: int
    labels: LabelMapping
    normalization: Normalization
    recipe: Recipe
    provenance: dict[str, Any] = field(default_factory=dict)
    decoding: Decoding = field(default_factory=Decoding)
    int8: Int8 | None = None
    training_values: TrainingValues | None = None
    bf16: Bf16Difference | None = None
    training_features: TrainingFeatures | None = None
    confidence_curve: ConfidenceCurve = field(default_factory=ConfidenceCurve)
    source: str = field(default="", compare=False)
    _sized: SizedModels = field(default_factory=SizedModels, init=False, compare=False)

    def __repr__(self) -> str:
        """Return one line: task, channels, net and score."""
        from .card import describe_model

        return describe_model(self)

    def _repr_html_(self) -> str:
        """Return the card that a notebook shows: facts, scores, and a picture of a shipped model."""
        from .card import render_model

        return render_model(self)

    @property
    def task(self) -> Task:
        """Task, which defines the meaning of the logits."""
        return make_task(self.recipe, self.labels, self.decoding)

    @property
    def members(self) -> int:
        """Number of nets; above 1 for an ensemble, which takes as many times as long as one net."""
        return len(list_members(self.net))

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

    def describe_members(self) -> str:
        """Return the number of nets and what it costs, for example ``3 nets, 3 times the time of one``; empty for 1."""
        return "" if self.members == 1 else f"{self.members} nets, {self.members} times the time of one"

    def describe_input(self) -> str:
        """Return the number of channels and the type of the training images, for example ``3 channels, uint8``."""
        dtype = self.provenance.get("fingerprint", {}).get("dtype")
        return format_count(self.channels, "channel") + (f", {dtype}" if dtype else "")

    # --- segmenting -------------------------------------------------------------------------------------------------

    def __call__(
        self,
        images: Any,
        *,
        axes: str | None = None,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
        precision: str | None = None,
        callback: ProgressCallback | None = None,
    ) -> Any:
        """Segment images: one, a list, a stack, or an array that is read lazily.

        Parameters
        ----------
        images
            One image as for `segment`; a list, tuple or generator of such images; a stack, which is an array with axes
            of pages before those of an image; or an array of dask or zarr, which is read when the labels are needed.
        axes
            Letter of each axis of an array: C, Y and X, and any others for pages, such as ``TZYX``. If None, the last
            two or three axes that fit the model are an image, and the others are pages.
        tile, device, tta, engine, precision
            As for `segment`.
        callback
            Function that gets a `septa.ProgressEvent` of the stage ``predict`` after each tile, such as
            `septa.progress`. Not used for lazy arrays.

        Returns
        -------
        ndarray, list or dask.array.Array
            Labels of `segment`, int32: ``(Y, X)`` for one image; a list of such arrays for a list; an array with the
            axes of pages first for a stack. For an array of dask or zarr, the same as a lazy array, whose blocks are
            segmented when they are computed. They are those of the whole image, except that objects may have other
            numbers, and that the image is compared with the training images by its values only.

        Raises
        ------
        InputError
            As for `segment`; or the axes have no clear meaning, or dask is not installed.
        ResourceError
            The memory does not hold a tile.

        Examples
        --------
        >>> model = Model.load("nuclei")  # doctest: +SKIP
        >>> labels_nyx = model(np.zeros((5, 64, 64), np.uint8))  # doctest: +SKIP
        """
        from .images import segment_images

        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine, precision=precision)
        return segment_images(self, images, options, axes=axes, callback=callback)

    def predict(
        self,
        images: Any,
        *,
        axes: str | None = None,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
        precision: str | None = None,
        measure: str | Sequence[str] = "basic",
        min_confidence: float | None = None,
        pixel_size_um: tuple[float, float] | None = None,
        callback: ProgressCallback | None = None,
    ) -> Any:
        """Segment images, with confidences, probabilities and the table of objects.

        Parameters
        ----------
        images, axes, tile, device, tta, engine, precision, callback
            As for a call of the model, but lazy arrays are refused.
        measure
            Measurements of objects: ``basic``, ``full``, or names of `septa.objects.MEASUREMENTS`.
        min_confidence
            Drop objects of lower confidence, 0 to 1; None keeps all.
        pixel_size_um
            (y, x) micrometres per pixel, for measurements in micrometres; that of the file if None.

        Returns
        -------
        Prediction or list
            A `septa.Prediction` for one image; a list of them for a list, and for the pages of a stack.

        Raises
        ------
        InputError
            As for a call of the model; or the labels are classes, and objects are to be dropped; or a measurement is
            not known.
        ResourceError
            The memory does not hold a tile.
        """
        from .images import Measuring, predict_images

        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine, precision=precision)
        wanted = Measuring(measure=measure, min_confidence=min_confidence, pixel_size_um=pixel_size_um)
        return predict_images(self, images, options, wanted, axes=axes, callback=callback)

    def segment(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
        precision: str | None = None,
    ) -> NDArray[np.int32]:
        """Segment one image of any size.

        A `septa.SeptaWarning` is issued if the image is unlike the training images, or if its values are rescaled
        because they have another bit depth; see `check_values` and `report_unlike`.

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
            `choose_engine` chooses.
        precision
            ``float32``, or ``bf16`` for bfloat16. If None, it is bfloat16 where `choose_engine` finds that faster and
            equal; an ``engine`` that is given keeps its own.

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
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine, precision=precision)
        model, input_cyx, prepared = self._prepare(image, options)
        labels_yx = model.compute_labels(input_cyx, prepared)
        model._warn_unlike(image, input_cyx, prepared)
        return labels_yx

    def logits(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
        precision: str | None = None,
    ) -> NDArray[np.float32]:
        """Compute the logits of one image of any size.

        Parameters and errors are those of `segment`.

        Returns
        -------
        ndarray
            Logits ``(K, Y, X)``, float32, one plane for each output of the net. With several versions (``tta``) they
            are the logits of the averaged probabilities.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine, precision=precision)
        model, input_cyx, prepared = self._prepare(image, options)
        logits_kyx = model.compute_logits(input_cyx, prepared)
        model._warn_unlike(image, input_cyx, prepared)
        return logits_kyx

    def probabilities(
        self,
        image: NDArray[Any] | str | PathLike[str],
        *,
        tile: int | None = None,
        device: str = "auto",
        tta: int | None = None,
        engine: str | Engine | None = None,
        precision: str | None = None,
    ) -> NDArray[np.float32]:
        """Compute the class probabilities of one image of any size.

        Parameters and errors are those of `segment`.

        Returns
        -------
        ndarray
            Probabilities ``(K, Y, X)`` in [0, 1], float32, one plane for each class.
        """
        options = PredictionOptions(tile=tile, device=device, tta=tta, engine=engine, precision=precision)
        model, input_cyx, prepared = self._prepare(image, options)
        logits_kyx = model.compute_logits(input_cyx, prepared)
        model._warn_unlike(image, input_cyx, prepared)
        return self.task.probabilities(logits_kyx)

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
        options = self._with_engine(options)
        if versions == 1:
            return resize_image(self._assemble_logits(inner_cyx, options), size)

        def compute(version_cyx: NDArray[Any]) -> NDArray[np.float32]:
            # Only the first version, the image itself, is compared with the training images.
            own = replace(options, sums=None) if options.sums else options
            return self._assemble_logits(version_cyx, own)

        return resize_image(average_versions(inner_cyx, versions, self.task, compute), size)

    def _with_engine(self, options: PredictionOptions) -> PredictionOptions:
        """Return options whose engine is made already."""
        engine = self.engine(options.device, options.engine, options.precision)
        return replace(options, engine=engine, precision=None)

    def _count_versions(self, tta: int | None) -> int:
        return check_versions(self.recipe.inference.tta if tta is None else tta)

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
        normalization = self.normalization.rescale(options.factor).resolve(image_cyx)
        engine = self.engine(options.device, options.engine, options.precision)
        run_tiles(self.net, engine, image_cyx, normalization, count_pixels(consume, options.on_pixels), options)

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
        return plan_model_tiles(self.net, *(self.recipe.data.resize or (height, width)), tile)

    def check_tile(self, tile: int | None) -> None:
        """Check that a tile has room for a core and the halo of the net; None is accepted.

        Raises
        ------
        InputError
            The tile is too small.
        """
        check_tile(self.net, tile)

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
        return replace(self, net=net, recipe=self.recipe.with_overrides(kept), int8=None, bf16=None)

    def reduce(self, factor: float) -> Model:
        """Return the model that works on images reduced by a factor of 1, 2, 4 or 8, whose labels have full size.

        Objects that are larger by the factor than those of the training are found as well as those, and the image takes
        a fraction of the time. A factor of 1/2 enlarges images: small objects are found, in four times the time. The
        weights are shared with this model, whose images are no longer measured. A quantised net computes in float32.

        Raises
        ------
        InputError
            The net cannot work on an image reduced that much.
        """
        if factor == 1:
            return self
        try:
            net = reduce_net(self.net, factor)
        except ValueError as error:
            raise InputError(f"reduction {factor:g}", str(error), "Give a smaller power of two") from None
        member = list_members(net)[0]
        kept = [f"net.reduction={member.reduction}", f"net.magnification={member.magnification}", *_UNMEASURED]
        recipe = self.recipe.with_overrides(kept)
        # The graph of a quantised net works on the whole image.
        return replace(self, net=net, recipe=recipe, decoding=self.decoding.enlarge(factor), int8=None)

    def reduce_with_engine(
        self, factor: float, device: str, engine: str | None = None, precision: str | None = None
    ) -> tuple[Model, Engine]:
        """Return the model of `reduce` and its engine, which are kept for the next image until a weight changes.

        Parameters are those of `reduce` and `engine`.
        """

        def make() -> tuple[Model, Engine]:
            model = self.reduce(factor)
            return model, model.engine(device, engine, precision)

        return reuse(self._sized, (factor, device, engine, precision), compute_stamp(self.net), make)

    def apply_scale(self, scale: ImageScale) -> Model:
        """Return the model of `reduce` that also joins parts and drops small objects by the areas of a scale."""
        model = self.reduce(scale.reduction)
        own = model.decoding
        least, joined = max(own.least_pixels, scale.least_pixels), max(own.join_pixels, scale.join_pixels)
        return replace(model, decoding=replace(own, least_pixels=least, join_pixels=joined))

    def assume_diameter(self, diameter: float) -> Model:
        """Return the model for images whose objects have a typical diameter in pixels; nothing is measured.

        Raises
        ------
        InputError
            As for `choose_scale`.
        """
        model = self.apply_scale(self.choose_scale(diameter))
        return replace(model, recipe=model.recipe.with_overrides(_UNMEASURED))

    def choose_scale(self, diameter: float) -> ImageScale:
        """Return the scale for `apply_scale` at which objects of a diameter in pixels get a size that the net knows.

        They get smaller than ``data.largest`` of the recipe or, without it, than twice the median diameter of the
        objects of the training. They get larger if ``instances.smallest`` asks for it.

        Raises
        ------
        InputError
            The model finds no objects, or does not know the diameters of its training objects.
        """
        known = self.provenance.get("fingerprint", {}).get("diameter_percentiles")
        largest = self.recipe.data.largest or (2 * known[1] if known else None)
        if largest is None or not self.task.finds_objects:
            problem = "the model knows no diameters of objects"
            raise InputError(f"--diameter {diameter:g}", problem, "Leave the option out")
        return choose_scale(self, diameter, largest)

    def fit_size(
        self,
        image_cyx: NDArray[Any],
        options: PredictionOptions,
        where: str | PathLike[str],
        notices: Notices,
        *,
        named: tuple[str | None, str | None] = (None, None),
    ) -> tuple[Model, PredictionOptions]:
        """Return the model and the options for an image: this one, or that of `apply_scale` as its objects ask.

        Parameters
        ----------
        image_cyx
            An image ``(C, Y, X)`` that `as_model_input` has returned.
        options
            Options of the prediction.
        where
            Path that the note names, or ``image``.
        notices
            Receives a note of what the size of the objects changes.
        named
            Name of the engine and precision of a reduced model, if the options hold an engine of this model.
        """
        if not is_measured(self):
            return self, options
        normalization = self.normalization.rescale(options.factor).resolve(image_cyx)
        size = (image_cyx.shape[1], image_cyx.shape[2])

        def read(window: tuple[slice, slice]) -> NDArray[Any]:
            return image_cyx[(slice(None), *window)]

        diameter = measure_diameter(self, read, size, normalization, options.device)
        scale = find_scale(self, diameter, size, where, notices)
        factor = scale.reduction
        if factor == 1:
            return self.apply_scale(scale), options
        given = options.engine
        name, precision = (given, options.precision) if given is None or isinstance(given, str) else named
        reduced, engine = self.reduce_with_engine(factor, options.device, name, precision)
        model = reduced.apply_scale(replace(scale, reduction=1))
        sums = None if options.sums is None else model.make_sums()
        tile = None if options.tile is None else scale_tile(model.net, options.tile, factor)
        return model, replace(options, engine=engine, precision=None, sums=sums, tile=tile)

    def _prepare(
        self, image: NDArray[Any] | str | PathLike[str], options: PredictionOptions
    ) -> tuple[Model, NDArray[Any], PredictionOptions]:
        """Read an image, compare it with the training images, and warn about what is assumed or suspected.

        The first result is the model at the size of the image.
        """
        model, input_cyx, prepared, lines = self.prepare_image(
            image, options, image if isinstance(image, str | PathLike) else "image"
        )
        for line in lines:
            warnings.warn(line, SeptaWarning, stacklevel=3)
        return model, input_cyx, prepared

    def prepare_image(
        self, image: NDArray[Any] | str | PathLike[str], options: PredictionOptions, where: str | PathLike[str]
    ) -> tuple[Model, NDArray[Any], PredictionOptions, list[str]]:
        """Read an image, compare its values with those of the training images, and choose its size; see `fit_size`.

        Parameters
        ----------
        image
            As for `segment`.
        options
            Options of the prediction.
        where
            Path that errors and warnings name, or ``image``.

        Returns
        -------
        model, image_cyx, options, lines
            Model that segments the image, arguments of its `compute_labels`, and printable lines about what is assumed
            or suspected.
        """
        found, compared = Notices(), Notices()
        if isinstance(image, str | PathLike):
            image_cyx = read_image(Path(image), channels=self.channels, notices=found)
        else:
            image_cyx = as_cyx(np.asarray(image), self.channels)
        input_cyx = self.as_model_input(image_cyx, where)
        factor = self.find_factor(input_cyx, where, compared)
        prepared = replace(options, factor=factor, sums=self.make_sums())
        sized = Notices()
        model, prepared = self.fit_size(input_cyx, prepared, where, sized)
        for line in sized.lines():
            _LOG.info(line)
        return model, input_cyx, prepared, [*found.warnings(), *compared.lines()]

    def _warn_unlike(
        self, image: NDArray[Any] | str | PathLike[str], image_cyx: NDArray[Any], options: PredictionOptions
    ) -> None:
        notices = Notices()
        self.report_unlike(image_cyx, options, image if isinstance(image, str | PathLike) else "image", notices)
        for line in notices.lines():
            warnings.warn(line, SeptaWarning, stacklevel=3)

    def make_sums(self) -> FeatureSums | None:
        """Return empty sums for `PredictionOptions`; None if the model lacks the features of its training images."""
        return None if self.training_features is None else FeatureSums(self.net)

    def report_unlike(
        self, image_cyx: NDArray[Any], options: PredictionOptions, where: str | PathLike[str], notices: Notices
    ) -> None:
        """Compare the features of an image with those of the training images, after its logits were computed.

        Engines that give no access to features leave ``options.sums`` empty. PyTorch then computes the features of at
        most four windows of 192 x 192 pixels.

        Parameters
        ----------
        image_cyx
            An image ``(C, Y, X)`` that `as_model_input` has returned.
        options
            Options with which the logits were computed, with ``sums`` of `make_sums`.
        where
            Path that the warning names, or ``image``.
        notices
            Receives a warning if the image is unlike the training images.
        """
        if self.training_features is None or options.sums is None:
            return
        sums = options.sums or self.measure_features(image_cyx, options.factor, device=options.device)
        report_distance(self.training_features, sums, where, notices)

    def measure_features(
        self, image_cyx: NDArray[Any], factor: float = 1.0, *, device: str = "cpu", side: int = 192
    ) -> FeatureSums:
        """Measure the features of an image, or of four windows of a large one, without computing logits.

        Of an ensemble, the first net is used.

        Parameters
        ----------
        image_cyx
            An image ``(C, Y, X)`` that `as_model_input` has returned.
        factor
            Number that multiplies its values before they are normalised; see `check_values`.
        device
            Device that runs the net.
        side
            Side of a window, pixels. An image is measured as a whole if it is not larger than four windows.
        """
        inner_cyx = resize_image(image_cyx, self.recipe.data.resize or image_cyx.shape[1:])
        normalization = self.normalization.rescale(factor).resolve(inner_cyx)
        net = list_members(self.net)[0]
        sums = FeatureSums(net)
        measure_windows(net, cut_windows(inner_cyx, side), normalization, pick_device(device), sums)
        return sums

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
        return adapt_image(image_cyx, self.channels, self.color, where, notices)

    def engine(self, device: str = "auto", engine: str | Engine | None = None, precision: str | None = None) -> Engine:
        """Make an engine that runs the net; an existing engine is returned unchanged.

        Errors are those of `septa.inference.make_engine` and of `choose_engine`.
        """
        if engine is not None and not isinstance(engine, str):
            return refuse_precision(engine, precision)
        name = self.choose_engine(device, engine, precision)
        runs_torch = parse_modes(name) is not None
        key = "" if runs_torch else f"{self.weights_sha256} {self.recipe.net.model_dump_json()} {self.channels}"
        task = self.task
        averaging = Averaging(task.activations, task.as_logits)
        return make_engine(self.net, pick_device(device), name, key=key, int8=self.int8, averaging=averaging)

    def choose_engine(
        self, device: str = "auto", engine: str | None = None, precision: str | None = None, *, fast: bool | None = None
    ) -> str:
        """Return the name of the engine that computes in a precision.

        By default it is ``openvino`` on a CPU if the model is quantised. Otherwise it is ``torch+bf16`` if the device
        is fast in bfloat16 and `bf16` says that the labels are those of float32, else ``torch``.

        Parameters
        ----------
        device, engine, precision
            As for `segment`; ``engine`` is a name.
        fast
            True if all processes that run the engine are fast in bfloat16; found out for this process if None.

        Raises
        ------
        InputError
            The precision is not known, or the engine does not compute in it.
        """
        on_cpu = pick_device(device).type == "cpu"
        is_int8 = self.int8 is not None and on_cpu
        if engine is not None or precision is not None:
            return apply_precision(engine or "torch", precision, is_int8=is_int8)
        if is_int8:
            return "openvino"
        agrees = self.bf16 is not None and self.bf16.is_small
        return BF16 if agrees and (has_fast_bf16(device) if fast is None else fast) else "torch"

    # --- one file ---------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str], *, half: bool = False) -> None:
        """Write the model to a file, whole or not at all.

        Parameters
        ----------
        path
            File to write.
        half
            If True, the weights of convolutions are rounded to float16, which halves the file. They are float32 again
            when it is read, as those of `round_to_half`.

        Raises
        ------
        ModelError
            A weight is NaN or Inf.
        InputError
            ``half`` is True, and a weight is too large for float16.
        ResourceError
            The disk is full.
        """
        try:
            data = self.to_bytes(half=half)
        except ValueError as error:
            problem = f"the model is not written, because {error}"
            raise ModelError(path, problem, "Train with a smaller training.lr") from None
        write_bytes(Path(path), data)

    def to_bytes(self, *, half: bool = False) -> bytes:
        """Return the bytes of the file that `save` writes; the inverse of `from_bytes`.

        Raises
        ------
        ValueError
            A weight is NaN or Inf.
        InputError
            ``half`` is True, and a weight is too large for float16.
        """
        model = self.round_to_half() if half else self
        weights = shrink_kernels(model.net.state_dict()) if half else model.net.state_dict()
        int8_tensors = {} if self.int8 is None else self.int8.tensors()
        header = model._make_header() | ({"weights": "float16"} if half else {})
        return tensor_file.pack(KIND, header, {**weights, **int8_tensors})

    def round_to_half(self) -> Model:
        """Return the model with the weights of convolutions rounded to the nearest float16, but still in float32.

        Each differs by at most 0.05 % (2^-11), or by 3e-8 if it is tiny.

        Raises
        ------
        InputError
            A weight is too large for float16.
        """
        return replace(self, net=round_kernels(self.net))

    def _make_header(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            **({} if self.members == 1 else {"members": self.members}),
            "labels": self.labels.to_json(),
            "normalization": self.normalization.to_json(),
            "recipe": self.recipe.model_dump(mode="json"),
            "task": self.recipe.task,
            "decoding": self.decoding.to_json(),
            **({} if self.int8 is None else {"int8": self.int8.to_json()}),
            **({} if self.training_values is None else {"training_values": self.training_values.to_json()}),
            **({} if self.bf16 is None else {"bf16": self.bf16.to_json()}),
            **({} if self.training_features is None else {"training_features": self.training_features.to_json()}),
            "confidence_curve": self.confidence_curve.to_json(),
            "provenance": {**self.provenance, "weights_sha256": self.weights_sha256},
        }

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Model:
        """Read a model from a file, or the shipped model of this name, without executing code from it.

        A `septa.SeptaWarning` is issued if a file or folder has the name of a shipped model.

        Raises
        ------
        ModelError
            The file is missing, is not a septa model, is damaged, or was changed after it was written; or there is
            neither a file nor a shipped model with this name.
        """
        return cls.from_bytes(cls.read(path), path)

    @staticmethod
    def read(path: str | PathLike[str]) -> bytes:
        """Return the bytes of a model file; ModelError if it cannot be read."""
        return read_model_bytes(path)

    @classmethod
    def from_bytes(cls, data: bytes, path: str | PathLike[str]) -> Model:
        """Build a model from the bytes of a file; errors are those of `load` and name ``path``."""
        return cls(**unpack_model(data, path), source=str(path))

    def with_provenance(self, **facts: Any) -> Model:
        """Return the same model with more facts (JSON values) in its provenance."""
        return replace(self, provenance={**self.provenance, **facts})
