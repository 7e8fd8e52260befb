"""The sections: every setting has a description, and the descriptions give the ranges that the types enforce."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from septa.recipe import Recipe, Section, recipe, settings


def descriptions(path: str) -> dict[str, dict[str, str]]:
    """Read the docstring after each setting from the source, by section and setting."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {}
            for here, after in zip(node.body, [*node.body[1:], None]):
                if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
                    text = after.value if isinstance(after, ast.Expr) else None
                    words = text.value if isinstance(text, ast.Constant) else ""
                    found[node.name][here.target.id] = " ".join(str(words).split())
    return found


SECTIONS = {name: field.annotation for name, field in Recipe.model_fields.items()}
SETTINGS = {
    f"{kind.__name__}.{key}": (field, descriptions(settings.__file__)[kind.__name__][key])
    for kind in SECTIONS.values()
    if isinstance(kind, type) and issubclass(kind, Section)
    for key, field in kind.model_fields.items()
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_description(name: str) -> None:
    _, text = SETTINGS[name]
    assert text.endswith(".")
    assert text[0].isupper() or text.startswith("``")


@pytest.mark.parametrize("name", [name for name, (field, _) in SETTINGS.items() if field.metadata])
def test_descriptions_give_the_range(name: str) -> None:
    field, text = SETTINGS[name]
    bounds = list(limits(field))
    for bound in bounds:
        assert bound in text, f"{name}: {bound}"


def limits(field: FieldInfo) -> list[str]:
    """Bounds of a setting as the descriptions write them."""
    low = next((f"{item.ge:g}" for item in field.metadata if isinstance(item, Ge)), None)
    above = next((f"{item.gt:g}" for item in field.metadata if isinstance(item, Gt)), None)
    high = next((f"{item.le:g}" for item in field.metadata if isinstance(item, Le)), None)
    below = next((f"{item.lt:g}" for item in field.metadata if isinstance(item, Lt)), None)
    texts = []
    if low and high:
        texts.append(f"{low} to {high}")
    elif low and below:
        texts.append(f"from {low} to below {below}")
    elif low:
        texts.append(f"at least {low}")
    if above:
        texts.append(f"above {above}")
    if above and below:
        texts.append(f"below {below}")
    return texts


def test_settings_outside_the_sections_have_a_description() -> None:
    texts = descriptions(recipe.__file__)["Recipe"]
    for name, kind in SECTIONS.items():
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            assert texts[name].endswith("."), name
