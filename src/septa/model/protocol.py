"""What the files of this folder need of a model; `septa.model.Model` has it all."""

from __future__ import annotations

from os import PathLike
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from septa.images import Normalization, TrainingValues
from septa.inference import Engine
from septa.labels import ImageScale, LabelMapping
from septa.nets import Ensemble, UNet
from septa.notices import Notices
from septa.objects import ConfidenceCurve
from septa.recipe import Recipe
from septa.tasks import Decoding, Task

from .options import PredictionOptions


class TrainedModel(Protocol):
    """Interface of a model to the predictions of many images and to its card; see `septa.model.Model`."""

    @property
    def net(self) -> UNet | Ensemble:
        """Net from normalised images to logits."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels of the training images."""
        ...

    @property
    def labels(self) -> LabelMapping:
        """Meaning of the values of label images."""
        ...

    @property
    def normalization(self) -> Normalization:
        """Normalisation of images."""
        ...

    @property
    def recipe(self) -> Recipe:
        """Settings of the training."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Facts of the training."""
        ...

    @property
    def training_values(self) -> TrainingValues | None:
        """Values of the training images."""
        ...

    @property
    def confidence_curve(self) -> ConfidenceCurve:
        """Curve that calibrates confidences."""
        ...

    @property
    def source(self) -> str:
        """File that it was read from."""
        ...

    @property
    def task(self) -> Task:
        """Task."""
        ...

    @property
    def members(self) -> int:
        """Number of nets."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights."""
        ...

    @property
    def color(self) -> bool:
        """True if the channels are a colour."""
        ...

    def describe_members(self) -> str:
        """Return the number of nets and their cost."""
        ...

    def describe_input(self) -> str:
        """Return the channels and type of the images."""
        ...

    def engine(self, device: str = "auto", engine: str | Engine | None = None, precision: str | None = None) -> Engine:
        """Make an engine."""
        ...

    def prepare_image(
        self, image: Any, options: PredictionOptions, where: str | PathLike[str]
    ) -> tuple[Self, NDArray[Any], PredictionOptions, list[str]]:
        """Read an image, compare its values and choose its size."""
        ...

    def as_model_input(
        self, image_cyx: NDArray[Any], where: str | PathLike[str], notices: Notices | None = None
    ) -> NDArray[Any]:
        """Adapt an image to the channels of the model."""
        ...

    def find_factor(self, image_cyx: NDArray[Any], where: str | PathLike[str], notices: Notices) -> float:
        """Return the factor for the values of an image."""
        ...

    @property
    def decoding(self) -> Decoding:
        """Thresholds by which objects are found."""
        ...

    def reduce(self, factor: float) -> Self:
        """Return the model that works on reduced or enlarged images."""
        ...

    def reduce_with_engine(
        self, factor: float, device: str, engine: str | None = None, precision: str | None = None
    ) -> tuple[Self, Engine]:
        """Return the model that works on reduced images, and its engine."""
        ...

    def apply_scale(self, scale: ImageScale) -> Self:
        """Return the model for images of a scale."""
        ...

    def compute_labels(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.int32]:
        """Compute labels."""
        ...

    def compute_logits(self, image_cyx: NDArray[Any], options: PredictionOptions) -> NDArray[np.float32]:
        """Compute logits."""
        ...

    def report_unlike(
        self, image_cyx: NDArray[Any], options: PredictionOptions, where: str | PathLike[str], notices: Notices
    ) -> None:
        """Compare the features of an image."""
        ...

    def as_written(self, labels_yx: NDArray[np.int32]) -> NDArray[Any]:
        """Return labels as they are written to files."""
        ...

    def to_bytes(self, *, half: bool = False) -> bytes:
        """Return the bytes of the model's file."""
        ...

    @classmethod
    def from_bytes(cls, data: bytes, path: str | PathLike[str]) -> Self:
        """Build a model from the bytes of a file."""
        ...
