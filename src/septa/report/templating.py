"""The templates of pages and fragments, in the folder ``templates``; every value that is not HTML is escaped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def replace_unprintable(value: object) -> str:
    """Replace control characters, lone surrogates and marks that reverse the writing direction by U+FFFD.

    A hostile name can then neither break a page nor disguise itself. HTML is returned unchanged.
    """
    return value if isinstance(value, Markup) else _UNPRINTABLE.sub("\ufffd", str(value))


@cache
def _load_environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=replace_unprintable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


def render_fragment(template: str, **values: Any) -> Markup:
    """Render a template.

    Parameters
    ----------
    template
        Name of a file in the folder ``templates``.
    values
        Values of its variables. Text is escaped; `markupsafe.Markup`, which all functions of this room return, is not.

    Returns
    -------
    Markup
        HTML.
    """
    return Markup(_load_environment().get_template(template).render(values))
