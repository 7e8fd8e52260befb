"""The recipe: every setting of a training, as one validated object and one YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from septa.errors import RecipeError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("the low end comes first")
    return ends


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]

IGNORE = -1
"""Value that ignored pixels have in labels inside septa, whatever the files say."""


class Section(BaseModel):
    """Common behaviour of every part: unknown keys are refused, values never change, no NaN or Inf."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """How label images are read and which images are held out."""

    encoding: Literal["auto", "binary", "index", "color", "instances", "multilabel"] = "auto"
    values: tuple[int | tuple[int, int, int], ...] | None = None
    """Raw label value (or RGB colour) of class 0, 1, ...; found in the labels when not given."""
    class_names: tuple[str, ...] | None = None
    ignore_label: int | None = None
    """Raw label value whose pixels count in no loss and no metric."""
    group: str | None = None
    """Regular expression on the file name; images whose match (group 1 if there is one) is equal stay together."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    channels: Count | None = None
    """Channels given to the net; the largest number found when not given (grey images are then repeated)."""
    normalization: Literal["dataset", "image", "asinh", "unit", "imagenet"] = "dataset"
    """``dataset``: mean and standard deviation of the training set. ``image``: percentiles of each image.
    ``asinh``: that, with bright values compressed, for dim objects beside bright ones. ``unit``: the range of the dtype
    becomes 0..1. ``imagenet``: that, then the mean and deviation that published encoders expect."""
    resize: tuple[Count, Count] | None = None
    """Height and width to which every image is resized before the net; labels get the image's own size again."""


class NetSettings(Section):
    """The network; see `septa.nets.UNet`."""

    depth: Annotated[int, Field(ge=1, le=7)] = 4
    """Number of poolings; an encoder other than ``plain`` has its own."""
    width: Annotated[int, Field(ge=1, le=512)] = 32
    """Channels at full resolution; they double at each level."""
    padding: Literal["same", "valid"] = "same"
    """``valid``: the paper's convolutions without padding; the image is mirrored around."""
    norm: Literal["batch", "group", "instance", "none"] = "batch"
    up: Literal["transpose", "bilinear"] = "transpose"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance of dropping a value at the end of the contracting path."""
    reduction: Literal[1, 2, 4, 8] = 1
    """Factor by which the net reduces the image inside; its logits are enlarged again."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """``sigmoid``: two classes from one output channel; overlapping classes have a sigmoid each in any case."""
    block: Literal["plain", "residual"] = "plain"
    squeeze: bool = False
    """Squeeze-and-excitation in every block; it pools over the image, so tiles are not exact."""
    attention: bool = False
    """Attention gates on the skip connections."""
    aspp: bool = False
    """Atrous spatial pyramid pooling at the bottom."""
    nested: bool = False
    """The nested skip connections of U-Net++."""
    deep_supervision: bool = False
    """Logits and a loss at every level of the expanding path."""
    encoder: Annotated[str, Field(pattern=r"^(plain|resnet(18|34|50)|timm:[\w.\-]+)$")] = "plain"
    """``plain``, ``resnet18``, ``resnet34``, ``resnet50`` or ``timm:NAME``."""
    pretrained: str | None = None
    """Weights for the encoder to begin with: the path of a safetensors file, or ``hub:NAME``."""

    @model_validator(mode="after")
    def _some_encoder(self) -> NetSettings:
        if self.pretrained is not None and self.encoder == "plain":
            raise ValueError("pretrained weights need an encoder such as resnet34")
        return self


class InstancesSettings(Section):
    """How objects are kept apart; for the task ``instances`` alone."""

    encoding: Literal["seam", "border", "distance"] = "seam"
    """What the net learns: foreground with the U-Net paper's seams; inside and rim; foreground and distance inward."""
    rim: Annotated[int, Field(ge=1, le=32)] = 2
    """Width of the rim of ``border``, pixels."""


class LossSettings(Section):
    """Weights of the summed loss terms. A task with overlapping classes uses ``bce`` in place of ``cross_entropy``."""

    cross_entropy: NonNegative = 1.0
    bce: NonNegative = 0.0
    dice: NonNegative = 0.5
    class_weights: Literal["none", "frequency"] | tuple[NonNegative, ...] = "none"
    border_weight: NonNegative = 0.0
    """w0 of the border weight map (equation 2 of the U-Net paper, where it is 10); 0 switches the map off."""
    border_sigma: Positive = 5.0
    """Its sigma, pixels."""

    @model_validator(mode="after")
    def _some_term(self) -> LossSettings:
        if self.cross_entropy + self.bce + self.dice == 0:
            raise ValueError("at least one of cross_entropy, bce and dice must be above 0")
        return self


class AugmentSettings(Section):
    """Random changes of image and labels together. Geometry is one displacement field, applied once."""

    flip: bool = True
    turn: bool = True
    """Random multiples of 90 degrees."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest free rotation, degrees."""
    scale: Range = (0.85, 1.2)
    """Smallest and largest magnification."""
    elastic: NonNegative = 6.0
    """Standard deviation of the displacements on the coarse grid, pixels; 0 switches the field off."""
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 3
    brightness: NonNegative = 0.2
    """Largest shift, in units of the normalised image."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest relative change of the deviation from the patch's mean."""
    gamma: Range = (0.8, 1.25)
    blur: NonNegative = 0.8
    """Largest Gaussian standard deviation, pixels."""
    noise: NonNegative = 0.1
    """Largest Gaussian standard deviation, in units of the normalised image."""
    probability: Share = 0.5
    """Chance of each of elastic, gamma, blur and noise, drawn for each sample."""


class SamplingSettings(Section):
    """How training patches are cut."""

    patch: tuple[Count, Count] = (256, 256)
    """Height and width, pixels."""
    overhang: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
    """Share of its side by which a patch may reach beyond the image, where it is mirrored."""
    rare_share: Share = 0.33
    """Share of the patches that is centred on a pixel of a class drawn uniformly (so rare classes are seen)."""


class TrainingSettings(Section):
    """Optimisation. ``steps`` bounds a training, and ``minutes`` too when given: whichever ends first."""

    steps: Count = 2000
    minutes: Positive | None = None
    batch: Count = 4
    accumulate: Count = 1
    """Batches whose gradients are averaged before each step."""
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    lr: Positive = 2e-3
    weight_decay: NonNegative = 1e-2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd and rmsprop; the first beta of adam and adamw."""
    schedule: Literal["cosine", "polynomial", "plateau", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the training over which the learning rate rises from 0."""
    patience: Count = 3
    """Validations without a better score after which ``plateau`` divides the learning rate by 10."""
    clip: NonNegative = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving average of the weights, which is what is validated and kept; 0 switches it off."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Mixed precision. ``auto``: bf16 on a GPU or a CPU that has it, fp16 on another GPU, else off."""
    compile: bool = False
    """Whether `torch.compile` makes one program of the net, which takes its time before the first step."""
    validations: Count = 20
    """How often the validation images are segmented, evenly spread over the training."""
    early_stop: Count | None = None
    """Stop after so many validations without a better score."""
    checkpoint_every: Count = 100
    """Steps between two checkpoints."""
    workers: Count | None = None
    """Threads that prepare samples; chosen from the cores when not given."""

    @field_validator("amp", mode="before")
    @classmethod
    def _as_written(cls, amp: Any) -> Any:
        return "off" if amp is False else amp  # YAML reads a bare off as false


class InferenceSettings(Section):
    """How a trained model segments."""

    tta: Annotated[int, Field(ge=1, le=8)] = 1
    """Rotated and mirrored versions of the image over which probabilities are averaged; the paper takes 7, and 8 are
    all symmetries of the square."""


class Recipe(Section):
    """Every setting of a training.

    Examples
    --------
    >>> recipe = Recipe()
    >>> recipe.with_overrides(["training.lr=1e-3", "sampling.patch=[128, 128]"]).training.lr
    0.001
    >>> Recipe.from_yaml(recipe.to_yaml()) == recipe
    True
    """

    septa: Literal[1] = 1
    """Version of the recipe format."""
    task: Literal["auto", "semantic", "instances"] = "auto"
    """What labels mean: classes, or objects that are kept apart. ``auto``: instances where the labels number objects;
    a training puts in its place what it stands for."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataSettings = DataSettings()
    net: NetSettings = NetSettings()
    instances: InstancesSettings = InstancesSettings()
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    sampling: SamplingSettings = SamplingSettings()
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Validate a nested mapping.

        Raises
        ------
        RecipeError
            Names every key that is unknown or whose value is not allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = "; ".join(_explain(item) for item in error.errors(include_url=False))
            raise RecipeError(where, found, "'septa recipe DATA' prints a complete valid recipe") from None

    @classmethod
    def from_yaml(cls, text: str, where: str = "recipe") -> Recipe:
        """Parse YAML text; see `parse`."""
        try:
            values = _read_yaml(text)
        except ValueError as error:
            problem = " ".join(str(error).split())
            raise RecipeError(where, f"is not valid YAML ({problem})", "mend the file") from None
        if not isinstance(values, dict):
            raise RecipeError(where, "holds no settings", "'septa recipe DATA' prints a valid recipe")
        return cls.parse(values, where)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Recipe:
        """Read a recipe file (YAML, UTF-8)."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise RecipeError(path, f"cannot be read ({reason})", "give the path of a YAML recipe") from None
        return cls.from_yaml(text, str(path))

    def with_overrides(self, assignments: Iterable[str]) -> Recipe:
        """Apply ``section.key=value`` or ``key=value`` assignments (values in YAML) and validate the result."""
        values = self.model_dump(mode="json")
        assignments = list(assignments)
        for assignment in assignments:
            text = assignment.partition("=")[2]
            *sections, name = full_key(assignment).split(".")
            target = values
            for section in sections:
                inner = target.get(section)
                if not isinstance(inner, dict):
                    raise RecipeError(f"--set {assignment}", f"there is no section '{section}'", "see 'septa recipe'")
                target = inner
            target[name] = _yaml_value(text, assignment)
        return Recipe.parse(values, f"--set {' '.join(assignments)}" if assignments else "recipe")

    def to_yaml(self, reasons: Mapping[str, str] | None = None) -> str:
        """Write as YAML; ``reasons`` maps ``section.key`` to a comment that stands beside it."""
        reasons = reasons or {}
        lines = []
        for name, value in self.model_dump(mode="json").items():
            if not isinstance(value, dict):
                lines.append(_yaml_line("", name, value, reasons.get(name)))
                continue
            lines.append(f"{name}:")
            lines += [_yaml_line("  ", key, inner, reasons.get(f"{name}.{key}")) for key, inner in value.items()]
        return "\n".join(lines) + "\n"


def full_key(assignment: str) -> str:
    """The key of an assignment with its section, which may be left out where only one section has such a key.

    Raises
    ------
    RecipeError
        There is no ``=``, or several sections have the key.

    Examples
    --------
    >>> full_key("width=16"), full_key("training.lr = 0.1"), full_key("seed=1")
    ('net.width', 'training.lr', 'seed')
    """
    key, equals, _ = assignment.partition("=")
    key = key.strip()
    if not equals:
        raise RecipeError(f"--set {assignment}", "has no '='", "write it as section.key=value")
    if "." in key or key in Recipe.model_fields:
        return key
    sections = {name: item.annotation for name, item in Recipe.model_fields.items()}
    found = [
        f"{name}.{key}"
        for name, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section) and key in kind.model_fields
    ]
    if len(found) > 1:
        raise RecipeError(f"--set {assignment}", f"'{key}' may be {' or '.join(found)}", "write its section before it")
    return found[0] if found else key


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Every setting in which two recipes differ, as ``key: old -> new``.

    Examples
    --------
    >>> differences(Recipe(), Recipe(seed=3))
    ['seed: 0 -> 3']
    """
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _explain(item: Any) -> str:
    key = " ".join(".".join(str(part) for part in item["loc"]).split()) or "recipe"
    if item["type"] == "extra_forbidden":
        return f"'{key}' is no setting"
    return f"'{key}' {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"


def _read_yaml(text: str) -> Any:
    """Parse untrusted YAML; ValueError for whatever is wrong. Aliases are refused: few lines of them hold billions
    of values."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases are not allowed")
        return yaml.safe_load(text)
    except (yaml.YAMLError, KeyError, AttributeError, RecursionError) as error:
        # PyYAML lets through what its constructors for !!bool and !!timestamp meet.
        raise ValueError(str(error) or type(error).__name__) from None


def _yaml_value(text: str, assignment: str) -> Any:
    try:
        return _read_yaml(text)
    except ValueError:
        raise RecipeError(f"--set {assignment}", "the value is not valid YAML", "quote it as YAML would") from None


def _yaml_line(indent: str, key: str, value: Any, reason: str | None) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    line = f"{indent}{key}: {written}"
    return f"{line:<36}  # {reason}" if reason else line
