"""The recipe: every setting of a training, as one validated object and one YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from septa.errors import RecipeError
from septa.recipe.explain import Finding, explain, explain_unknown, join, list_keys
from septa.recipe.settings import (
    AugmentSettings,
    DataSettings,
    InferenceSettings,
    InstancesSettings,
    LossSettings,
    NetSettings,
    SamplingSettings,
    Section,
    SemanticSettings,
    TrainingSettings,
)
from septa.recipe.yaml_text import read_yaml, write_setting

_REMEDY = "Run 'septa recipe DATA' to print a complete valid recipe"


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
    """Meaning of the labels: classes of pixels, or separate objects. ``auto`` means ``instances`` if the labels number
    objects, else ``semantic``; a training replaces it by the one it means."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all random numbers, from 0 to below 2**32."""
    data: DataSettings = DataSettings()
    net: NetSettings = NetSettings()
    instances: InstancesSettings = InstancesSettings()
    semantic: SemanticSettings = SemanticSettings()
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    sampling: SamplingSettings = SamplingSettings()
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Validate a nested mapping.

        Parameters
        ----------
        values
            Settings and sections of settings; defaults are used for the others.
        where
            File or option that an error names.

        Raises
        ------
        RecipeError
            A key is unknown or a value is not allowed. The message names the first three such keys and counts the
            others.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(where, join(explain(error, cls)), _REMEDY) from None

    @classmethod
    def from_yaml(cls, text: str, where: str = "recipe") -> Recipe:
        """Parse YAML text; parameters and errors as for `parse`."""
        try:
            values = read_yaml(text)
        except ValueError as error:
            raise RecipeError(where, f"the text is not valid YAML ({error})", "Correct it at this place") from None
        if not isinstance(values, dict):
            raise RecipeError(where, "the text holds no settings", _REMEDY)
        return cls.parse(values, where)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Recipe:
        """Read a recipe file (YAML, UTF-8); errors as for `parse`."""
        remedy = "Give the path of a YAML recipe"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            reason = error.strerror or "unknown error"
            raise RecipeError(path, f"the file cannot be read ({reason})", remedy) from None
        except UnicodeDecodeError:
            raise RecipeError(path, "the file is not UTF-8 text", remedy) from None
        return cls.from_yaml(text, str(path))

    def with_overrides(self, assignments: Iterable[str]) -> Recipe:
        """Apply assignments and validate the result.

        Parameters
        ----------
        assignments
            ``section.key=value``, or ``key=value`` if only one section has the key; values in YAML.

        Raises
        ------
        RecipeError
            An assignment has no ``=``, its key is unknown or ambiguous, or its value is not allowed.
        """
        values = self.model_dump(mode="json")
        by_key: dict[str, str] = {}
        for assignment in assignments:
            key = full_key(assignment)
            by_key[key] = assignment
            *sections, name = key.split(".")
            target = values
            for section in sections:
                inner = target.get(section)
                if not isinstance(inner, dict):
                    raise RecipeError(f"--set {assignment}", explain_unknown(key, type(self)).problem, _REMEDY)
                target = inner
            target[name] = _read_value(assignment)
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            findings = explain(error, type(self))
            raise RecipeError(_name_assignments(by_key, findings), join(findings), _REMEDY) from None

    def to_yaml(self, reasons: Mapping[str, str] | None = None) -> str:
        """Write as YAML; ``reasons`` maps ``section.key`` to a comment, which is written after the setting."""
        reasons = reasons or {}
        lines = []
        for name, value in self.model_dump(mode="json").items():
            if not isinstance(value, dict):
                lines.append(write_setting("", name, value, reasons.get(name)))
                continue
            lines.append(f"{name}:")
            lines += [write_setting("  ", key, inner, reasons.get(f"{name}.{key}")) for key, inner in value.items()]
        return "\n".join(lines) + "\n"


def full_key(assignment: str) -> str:
    """Return the key of an assignment with its section, which may be omitted if only one section has such a key.

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
        raise RecipeError(f"--set {assignment}", "the assignment has no '='", "Write it as section.key=value")
    if "." in key or key in Recipe.model_fields:
        return key
    found = [name for name in list_keys(Recipe) if name.rpartition(".")[2] == key]
    if len(found) > 1:
        raise RecipeError(f"--set {assignment}", f"{key} can mean {' or '.join(found)}", "Write its section before it")
    return found[0] if found else key


def differences(old: Recipe, new: Recipe) -> list[str]:
    """List every setting in which two recipes differ, as ``key: old -> new``.

    Examples
    --------
    >>> differences(Recipe(), Recipe(seed=3))
    ['seed: 0 -> 3']
    """
    old_values, new_values = (_flatten(recipe.model_dump(mode="json")) for recipe in (old, new))
    return [f"{key}: {value} -> {new_values[key]}" for key, value in old_values.items() if value != new_values[key]]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _read_value(assignment: str) -> Any:
    try:
        return read_yaml(assignment.partition("=")[2])
    except ValueError as error:
        problem = f"the value is not valid YAML ({error})"
        raise RecipeError(f"--set {assignment}", problem, "Correct the value, or quote it") from None


def _name_assignments(by_key: Mapping[str, str], findings: Iterable[Finding]) -> str:
    """Name the assignments that caused the findings: those of the same settings or sections, or all if none is."""
    wrong = [finding.key for finding in findings]
    causes = [
        assignment
        for key, assignment in by_key.items()
        if any(f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in wrong)
    ]
    return " ".join(f"--set {assignment}" for assignment in causes or by_key.values())
