"""The sections of a recipe: the name, type, default, unit and range of every setting.

A validator checks what types cannot express. Its message continues after the name of the setting, as in "must give the
smaller value first", or is a whole clause if it concerns a section.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

IGNORE = -1
"""Value that ignored pixels have in labels inside septa, whatever their value in the files is."""

_ENCODERS = "plain, resnet18, resnet34, resnet50, timm:NAME"


def _check_order(ends: tuple[float, float]) -> tuple[float, float]:
    """Return ``ends`` if the first is not above the second."""
    if ends[0] > ends[1]:
        raise ValueError("must give the smaller value first")
    return ends


def _check_encoder(name: str) -> str:
    """Return ``name`` if it is written as an encoder is; septa.nets checks that timm knows it."""
    if not re.fullmatch(r"plain|resnet(18|34|50)|timm:[\w.\-]+", name):
        raise ValueError(f"must be one of {_ENCODERS}")
    return name


def _check_slice(text: str) -> str:
    """Return ``text`` if it is a range of numbers."""
    if not re.fullmatch(r"-?\d*:-?\d*(:[1-9]\d*)?", text):
        raise ValueError("must be START:STOP or START:STOP:STEP, such as 0:50")
    return text


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=4096)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_check_order)]


class Section(BaseModel):
    """Common behaviour of all sections: unknown keys are refused, values never change, NaN and Inf are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """Settings for reading label images and for choosing the validation images."""

    encoding: Literal["auto", "binary", "index", "color", "instances", "multilabel"] = "auto"
    """Meaning of the values in label images: ``binary`` (foreground or not), ``index`` (one value per class),
    ``color`` (one RGB colour per class), ``instances`` (one value per object) or ``multilabel`` (one plane per class;
    classes may overlap). ``auto`` infers it from the labels."""
    values: tuple[int | tuple[int, int, int], ...] | None = None
    """Raw label value, or RGB colour, of class 0, 1, ...; found in the labels if null."""
    class_names: tuple[str, ...] | None = None
    """Names of class 0, 1, ...; generic names if null."""
    ignore_label: int | None = None
    """Raw label value whose pixels count in no loss and no metric; none if null."""
    threshold: int | float | None = None
    """Value of a label image from which on a pixel is foreground, such as 128: for masks with soft edges and masks that
    were saved as JPEG. If null, label images must hold exact values."""
    group: str | None = None
    """Regular expression on the file name. Images with the same match (of group 1 if there is one) stay together:
    they are all used for training or all for validation."""
    pairs: Annotated[str, AfterValidator(_check_slice)] | None = None
    """Part of the pairs of images and labels as ``START:STOP`` or ``START:STOP:STEP``, such as ``0:50``: their numbers
    from 0 in the order of the files, without STOP. All pairs if null."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the images that is held out for validation, above 0 and below 1. If there is one image, or all images
    belong together, that share of each image is held out."""
    channels: Count | None = None
    """Channels that the net reads, at least 1; the largest number found if null (grey images are then repeated)."""
    normalization: Literal["dataset", "image", "asinh", "unit", "imagenet"] = "dataset"
    """Scaling of image values. ``dataset``: mean 0 and standard deviation 1 over the training images that hold objects,
    with extreme pixels limited. ``image``: by percentiles of each image. ``asinh``: as ``image``, with bright values
    compressed, for dim objects near bright ones. ``unit``: the range of the dtype becomes 0 to 1. ``imagenet``: as
    ``unit``, then the mean and standard deviation that published encoders expect."""
    invert_light: bool = False
    """Invert each image with a light background, so that objects are bright on dark in all of them; with normalization
    ``image`` or ``asinh``."""
    resize: tuple[Count, Count] | None = None
    """Height and width, in pixels, to which every image is resized before the net. Predicted labels are enlarged to
    the image's own size again. No resizing if null."""
    largest: Positive | None = None
    """Typical diameter of objects, in pixels, that the net must not meet: in training and in prediction, an image with
    larger objects is reduced by 2, 4 or 8 until they are smaller, and its labels are enlarged again. In prediction the
    diameter is measured in the image. Every image keeps its size if null. For the task instances."""

    @model_validator(mode="after")
    def _check_combinations(self) -> DataSettings:
        if self.invert_light and self.normalization not in ("image", "asinh"):
            raise ValueError("data.invert_light needs data.normalization=image or asinh")
        if self.largest is not None and self.resize is not None:
            raise ValueError("data.largest cannot be combined with data.resize")
        if self.threshold is not None and (self.values is not None or self.ignore_label is not None):
            raise ValueError("data.threshold cannot be combined with data.values or data.ignore_label")
        return self


class NetSettings(Section):
    """Settings of the network; see `septa.nets.UNet`."""

    depth: Annotated[int, Field(ge=1, le=7)] = 4
    """Number of poolings, 1 to 7; an encoder other than ``plain`` has its own."""
    width: Annotated[int, Field(ge=1, le=512)] = 32
    """Channels at full resolution, 1 to 512; they double at each level unless ``widths`` are given."""
    widths: tuple[Width, ...] | None = None
    """Channels of each level of the contracting path, full resolution first: ``depth`` + 1 numbers, the first of which
    is ``width``. If null, ``width`` doubles at each level."""
    decoder_widths: tuple[Width, ...] | None = None
    """Channels of each level of the expanding path, full resolution first: ``depth`` numbers. Those of the contracting
    path if null."""
    padding: Literal["same", "valid"] = "same"
    """``same``: zero padding in every convolution. ``valid``: the paper's convolutions without padding; the image
    is mirrored at its edges instead."""
    norm: Literal["batch", "group", "instance", "none"] = "batch"
    """Normalisation layer after each convolution. ``group`` and ``instance`` pool over the image, so tiles are not
    exact."""
    up: Literal["transpose", "bilinear", "aligned"] = "transpose"
    """Upsampling: a transposed convolution; ``bilinear``: a 1x1 convolution and bilinear interpolation; ``aligned``:
    bilinear interpolation with aligned corners and without a convolution, by which tiles are not exact."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a value at the end of the contracting path, from 0 to below 1."""
    magnification: Literal[1, 2] = 1
    """Factor by which the net enlarges the image; its logits shrink again. With 2 it finds objects of few pixels, and
    takes four times as long."""
    reduction: Literal[1, 2, 4, 8] = 1
    """Factor by which the net downsamples the image at its input; its logits are upsampled again."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """``softmax``: one output channel per class. ``sigmoid``: one channel for two classes. Overlapping classes have
    one sigmoid each in both cases."""
    bias: bool = False
    """Biases in the convolutions of blocks even where a norm follows."""
    head_kernel: Literal[1, 3] = 1
    """Side of the kernel of the last convolution, 1 or 3 pixels."""
    odd_sizes: Literal["pad", "crop"] = "pad"
    """Treatment of images with a side that is not a multiple of 2**depth. ``pad``: the edge is repeated inside the net.
    ``crop``: skip connections are cropped at the bottom and at the right, and the last logits are repeated."""
    block: Literal["plain", "residual"] = "plain"
    """Convolution block of every level; ``residual`` adds the block's input to its output."""
    squeeze: bool = False
    """Squeeze-and-excitation in every block; it pools over the image, so tiles are not exact."""
    attention: bool = False
    """Attention gates on the skip connections."""
    aspp: bool = False
    """Atrous spatial pyramid pooling at the bottom, without the branch that pools over the image."""
    nested: bool = False
    """The nested skip connections of U-Net++."""
    deep_supervision: bool = False
    """Logits and a loss at every level of the expanding path."""
    encoder: Annotated[str, AfterValidator(_check_encoder)] = "plain"
    """Contracting path: ``plain``, ``resnet18``, ``resnet34``, ``resnet50`` or ``timm:NAME``."""
    pretrained: str | None = None
    """Initial weights of the encoder: the path of a safetensors file, or ``hub:NAME``. Random weights if null."""

    @model_validator(mode="after")
    def _check_net(self) -> NetSettings:
        if self.padding == "valid" and self.up == "aligned":
            raise ValueError("net.up=aligned needs net.padding=same")
        if self.widths is not None and self.widths[:1] != (self.width,):
            raise ValueError(f"net.widths begins with another number than net.width, which is {self.width}")
        if self.pretrained is not None and self.encoder == "plain":
            raise ValueError("net.pretrained needs an encoder with published weights, such as net.encoder=resnet34")
        return self


class InstancesSettings(Section):
    """Settings for separating objects; only the task ``instances`` uses them."""

    encoding: Literal["seam", "border", "distance"] = "seam"
    """Target of the net. ``seam``: foreground, with a seam of background between touching objects as in the U-Net
    paper. ``border``: inside and rim of objects. ``distance``: foreground, and the distance to the object's edge."""
    rim: Annotated[int, Field(ge=1, le=32)] = 2
    """Width of the rim of ``border``, 1 to 32 pixels."""
    rim_share: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Least width of the rim of ``border`` as a share of the depth of its object, 0 to 0.9. Wide rims keep the
    insides of touching objects apart, whatever their size."""
    smallest: Positive | None = None
    """Typical diameter in pixels below which an image is enlarged by 2 in prediction. It is measured in the image. Null
    enlarges none."""
    least_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Smallest area of an object in prediction, as a share of that of a disc with the typical diameter in its image, 0
    to 0.5. Smaller ones are dropped as debris."""
    join_share: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Area below which touching parts are one object in prediction, as a multiple of that of a disc with the typical
    diameter in its image, 0 to 8. The smaller the parts are together, the deeper a rim is ignored. 0 joins none."""
    fill_holes: bool = True
    """Fill the holes of predicted objects. Set it to false if objects have real holes."""


class SemanticSettings(Section):
    """Settings for classes of pixels; only the task ``semantic`` uses them."""

    walls: bool = False
    """True if class 0 is thin walls that divide regions of class 1, such as membranes between cells. The probability
    from which on a pixel is class 1 is then tuned on the validation images, so that few regions merge or split. It is
    1/2 otherwise."""


class LossSettings(Section):
    """Weights of the summed loss terms. A task with overlapping classes uses ``bce`` in place of ``cross_entropy``."""

    cross_entropy: NonNegative = 1.0
    """Weight of the cross entropy, at least 0."""
    bce: NonNegative = 0.0
    """Weight of the binary cross entropy of sigmoid outputs, at least 0."""
    dice: NonNegative = 0.5
    """Weight of the Dice loss, at least 0."""
    class_weights: Literal["none", "frequency"] | tuple[NonNegative, ...] = "none"
    """Weight of each class in the cross entropies: a list of numbers of at least 0; or ``frequency``, the inverse of
    the class's share of the pixels."""
    border_weight: NonNegative = 0.0
    """Weight w0 of the border weight map (equation 2 of the U-Net paper, which uses 10), at least 0; 0 switches it
    off."""
    border_sigma: Positive = 5.0
    """Sigma of the border weight map, in pixels, above 0."""

    @model_validator(mode="after")
    def _check_terms(self) -> LossSettings:
        if self.cross_entropy + self.bce + self.dice == 0:
            raise ValueError("at least one of loss.cross_entropy, loss.bce and loss.dice must be above 0")
        return self


class AugmentSettings(Section):
    """Random changes of image and labels together. Geometry is one displacement field, applied once."""

    flip: bool = True
    """Flips of each axis, with probability 1/2 each."""
    turn: bool = True
    """Turns by a random multiple of 90 degrees."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest free rotation, 0 to 180 degrees."""
    scale: Range = (0.85, 1.2)
    """Smallest and largest magnification, both above 0."""
    elastic: NonNegative = 6.0
    """Standard deviation of the displacements on the coarse grid, in pixels, at least 0; 0 switches the field off."""
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 3
    """Nodes of the coarse grid along each side of a patch, 2 to 32."""
    brightness: NonNegative = 0.2
    """Largest shift, at least 0, in units of the normalised image."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest relative change of the deviation from the patch's mean, from 0 to below 1."""
    gamma: Range = (0.8, 1.25)
    """Smallest and largest exponent of the intensities, both above 0."""
    blur: NonNegative = 0.8
    """Largest standard deviation of the Gaussian blur, in pixels, at least 0."""
    noise: NonNegative = 0.1
    """Largest standard deviation of the Gaussian noise, at least 0, in units of the normalised image."""
    probability: Share = 0.5
    """Probability, 0 to 1, of each of elastic, gamma, blur and noise, drawn separately for each sample."""


class SamplingSettings(Section):
    """Settings for cutting training patches."""

    patch: tuple[Count, Count] = (256, 256)
    """Height and width of a patch, in pixels, each at least 1."""
    overhang: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
    """Share of its side by which a patch may extend beyond the image, which is mirrored there; from 0 to below 0.5."""
    rare_share: Share = 0.33
    """Share of the patches, 0 to 1, that is centred on a pixel of a class drawn uniformly, so that rare classes are
    seen."""
    balance: Share = 0.0
    """How far images of a rare style are drawn oftener, 0 to 1: 0 draws each image once in an epoch, 1 each style as
    often as every other. Styles differ in colour, and in whether the background is light or dark."""


class TrainingSettings(Section):
    """Settings of the optimisation. A training ends after ``steps``, or after ``minutes`` if that is earlier."""

    start: str = "auto"
    """Initial weights: ``scratch`` for new ones, or those of a model, by its path or the name of a shipped model.
    ``auto`` means the shipped model that finds the objects of the images best if it finds enough of them, else
    ``scratch``. In a recipe file ``auto`` means ``scratch``."""
    steps: Count = 2000
    """Largest number of optimiser steps, at least 1."""
    minutes: Positive | None = None
    """Time budget in minutes, above 0; no limit if null."""
    batch: Count = 4
    """Patches in a batch, at least 1, over all processes."""
    accumulate: Count = 1
    """Batches whose gradients are averaged before each step, at least 1."""
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """Optimiser."""
    lr: Positive = 2e-3
    """Learning rate after the warm-up, above 0."""
    weight_decay: NonNegative = 1e-2
    """Weight decay of the convolution weights, at least 0."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd and rmsprop, and first beta of adam and adamw, from 0 to below 1."""
    schedule: Literal["cosine", "polynomial", "plateau", "constant"] = "cosine"
    """Change of the learning rate after the warm-up; see `septa.training.schedule.compute_lr_factor`."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the training, from 0 to below 1, over which the learning rate rises from 0."""
    patience: Count = 3
    """Validations without a better score, at least 1, that ``plateau`` accepts; after one more it divides the learning
    rate by 10, and counts again."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient, at least 0; 0 switches clipping off."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average of the weights, from 0 to below 1. The average is validated and saved
    in place of the weights; 0 switches it off."""
    freeze_statistics: Share = 0.0
    """Share of the training, 0 to 1, at its end, in which batch norm computes what it computes in prediction: its
    running statistics stay fixed and are used in place of those of the batch. 1 means from the first step on, for a
    net that is trained already."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Mixed precision. ``auto``: bf16 on a GPU or a CPU with bf16 instructions, fp16 on another GPU, else off."""
    compile: bool = False
    """Compile the net with `torch.compile`, which delays the first step."""
    validations: Count = 20
    """Number of validations, at least 1, evenly spread over the training."""
    early_stop: Count | None = None
    """Validations without a better score, at least 1, after which the training stops; no early stopping if null."""
    checkpoint_every: Count = 100
    """Steps between two checkpoints, at least 1."""
    workers: Count | None = None
    """Threads that prepare samples, at least 1; chosen from the cores if null."""

    @field_validator("amp", mode="before")
    @classmethod
    def _read_off(cls, amp: Any) -> Any:
        return "off" if amp is False else amp  # YAML reads a bare off as false


class InferenceSettings(Section):
    """Settings for segmenting with the trained model."""

    tta: Annotated[int, Field(ge=1, le=8)] = 1
    """Rotated and mirrored versions of the image, 1 to 8, over which probabilities are averaged. The paper uses 7; 8
    are all symmetries of the square."""
