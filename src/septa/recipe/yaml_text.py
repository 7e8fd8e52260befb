"""YAML text to values and back. Errors of a text are described in septa's own words, with line and column."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

_SHOWN = 60
"""Characters of a value that a message shows."""

_DEPTH = 16
"""Levels of lists and mappings that a text may have; recipes have three."""

_ALIAS = "an alias is not allowed"
_DEEP = f"lists and mappings may not be nested more than {_DEPTH} levels deep"
_REPEATED = "this key is given twice; remove one of them"
_VALUE = "this number, date or truth value cannot be read"
_REASONS = {
    _ALIAS: _ALIAS,
    _DEEP: _DEEP,
    _REPEATED: _REPEATED,
    _VALUE: _VALUE,
    "undefined alias": _ALIAS,
    "unexpected end of stream": "a quote is not closed",
    "'<stream end>'": "a bracket is not closed",
    "could not find expected ':'": "a colon is missing after this key",
    "mapping values are not allowed": "a colon is not allowed here; quote the text that contains it",
    "found character '\\t'": "a tab cannot indent; use spaces",
    "that cannot start any token": "text cannot begin with this character; quote it",
    "found another document": "a second document begins here",
    "unhashable key": "a list or a mapping cannot be a key",
    "could not determine a constructor": "this tag is not allowed",
    "undefined tag handle": "this tag is not allowed",
}
"""Part of a problem as PyYAML words it: the reason in the user's words. The first match is used."""
_OTHER_REASON = "this does not fit the text before it; check the indentation, quotes and brackets"
_BEGINS_EARLIER = ("unexpected end of stream", "could not find expected ':'")
"""Parts of the problems that the user has to correct at their beginning, which PyYAML calls the context."""


class _Loader(yaml.SafeLoader):
    """Loader of untrusted YAML.

    It refuses aliases, few lines of which hold billions of values; deep nesting, which exhausts the stack; and repeated
    keys, of which PyYAML keeps the last without a word.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        reason = _ALIAS if self.check_event(yaml.AliasEvent) else _DEEP if self.depth > _DEPTH else None
        if reason:
            raise ComposerError(None, None, reason, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = (key.tag, key.value)
                if name in seen:
                    raise ConstructorError(None, None, _REPEATED, key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, OverflowError):
            # PyYAML lets through what its constructors for numbers, !!bool and !!timestamp meet.
            raise ConstructorError(None, None, _VALUE, node.start_mark) from None


def read_yaml(text: str) -> Any:
    """Parse untrusted YAML text.

    Raises
    ------
    ValueError
        The text is not valid YAML, has aliases, repeats a key or is nested too deeply. The message gives the place of
        the problem.

    Examples
    --------
    >>> read_yaml("net: {depth: 3}")
    {'net': {'depth': 3}}
    >>> read_yaml("seed: 'x")
    Traceback (most recent call last):
    ValueError: line 1, column 7: a quote is not closed
    """
    try:
        return _Loader(text).get_single_data()
    except ReaderError as error:
        begin = text.rfind("\n", 0, error.position) + 1
        line = text.count("\n", 0, error.position)
        reason = f"the character U+{int(error.character):04X} is not allowed"
        raise ValueError(f"{_describe_place(line, error.position - begin)}: {reason}") from None
    except yaml.MarkedYAMLError as error:
        raise ValueError(_explain(error)) from None


def write_setting(indent: str, key: str, value: Any, comment: str | None) -> str:
    """Write a setting as one line of YAML; the comment, if there is one, begins in column 39 or later."""
    line = f"{indent}{key}: {_dump(value)}"
    return f"{line:<36}  # {comment}" if comment else line


def show_value(value: Any) -> str:
    """Write a value for a message: in one line, as YAML would, cut after 60 characters.

    Examples
    --------
    >>> show_value("fancy"), show_value(None), show_value([1, 2.5]), show_value("")
    ('fancy', 'null', '[1, 2.5]', "''")
    """
    if isinstance(value, bytes):
        return "binary data"
    try:
        text = " ".join(_dump(value).split())
    except (yaml.YAMLError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    reason = next((words for part, words in _REASONS.items() if part in problem), _OTHER_REASON)
    earlier = any(part in problem for part in _BEGINS_EARLIER)
    mark = error.context_mark if earlier and error.context_mark else error.problem_mark or error.context_mark
    return f"{_describe_place(mark.line, mark.column)}: {reason}" if mark else reason


def _describe_place(line: int, column: int) -> str:
    return f"line {line + 1}, column {column + 1}"


def _dump(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
