"""The precision of a prediction: float32, or bfloat16 where that is fast and gives the same labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from septa.errors import InputError
from septa.inference import Engine, parse_modes

PRECISIONS = ("float32", "bf16")
BF16 = "torch+bf16"
"""Name of the engine that computes in bfloat16."""
_AGREES = 2e-4
"""Largest share of the pixels whose labels may differ if bfloat16 is used without being asked for."""
_ENOUGH = 50_000
"""Smallest number of pixels on which that share is known well enough."""


@dataclass(frozen=True, kw_only=True)
class Bf16Difference:
    """Number of pixels of the validation images whose labels differ between bfloat16 and float32.

    Attributes
    ----------
    changed
        Number of pixels whose labels differ.
    pixels
        Number of pixels that were compared.
    """

    changed: int
    pixels: int

    @property
    def share(self) -> float:
        """Share of the pixels whose labels differ."""
        return self.changed / self.pixels

    @property
    def is_small(self) -> bool:
        """True if bfloat16 may be used without being asked for: at most 0.02 % of at least 50,000 pixels differ."""
        return self.pixels >= _ENOUGH and self.share <= _AGREES

    def to_json(self) -> dict[str, int]:
        """Return the attributes as JSON values."""
        return {"changed": self.changed, "pixels": self.pixels}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Bf16Difference:
        """Rebuild from `to_json`; KeyError, TypeError or ValueError if a value is missing or not possible."""
        changed, pixels = values["changed"], values["pixels"]
        if type(changed) is not int or type(pixels) is not int:
            raise TypeError("the numbers of pixels must be integers")
        if not 0 <= changed <= pixels or not pixels:
            raise ValueError(f"{changed} of {pixels} pixels cannot differ")
        return cls(changed=changed, pixels=pixels)


def apply_precision(engine: str, precision: str | None, *, is_int8: bool) -> str:
    """Return the name of an engine that computes in a precision.

    Parameters
    ----------
    engine
        Name of an engine; see `septa.inference.make_engine`.
    precision
        One of `PRECISIONS`; the engine's own if None.
    is_int8
        True if ``openvino`` and ``auto`` run this model in 8-bit integers on the device.

    Raises
    ------
    InputError
        The engine does not compute in this precision.
    """
    if precision is None:
        return engine
    where = f"--precision {precision}"
    modes = parse_modes(engine)
    if precision not in PRECISIONS:
        raise InputError(where, "this precision is not known", f"Use {' or '.join(PRECISIONS)}")
    if precision == "bf16" and (modes is None or "fp16" in modes):
        problem = f"the engine {engine} does not compute in bfloat16"
        raise InputError(where, problem, "Give --engine torch, or leave one of the options out")
    if precision == "bf16":
        return engine if modes is None or "bf16" in modes else "+".join([BF16, *modes])
    if is_int8 and engine in ("openvino", "auto"):
        problem = f"the engine {engine} runs this model in 8-bit integers"
        raise InputError(where, problem, "Give --engine torch, or leave one of the options out")
    if modes is not None and {"bf16", "fp16"} & set(modes):
        problem = f"the engine {engine} does not compute in float32"
        raise InputError(where, problem, "Give --engine torch, or leave one of the options out")
    return engine


def refuse_precision(engine: Engine, precision: str | None) -> Engine:
    """Return an engine that exists already; InputError if a precision is given with it."""
    if precision is not None:
        problem = "the engine exists already and has its own precision"
        raise InputError(f"--precision {precision}", problem, "Give the name of an engine, or leave the precision out")
    return engine


def explain_precision(engine: str, difference: Bf16Difference | None, *, fast: bool) -> tuple[str, ...]:
    """Return a line about an engine in bfloat16; none about other engines.

    Parameters
    ----------
    engine
        Name of the engine.
    difference
        The model's difference between bfloat16 and float32; None if it was not measured.
    fast
        True if the device is fast in bfloat16; see `septa.runtime.has_fast_bf16`.
    """
    if "bf16" not in (parse_modes(engine) or ()):
        return ()
    line = f"engine: {engine.replace('+bf16', '')} in bf16, which was not compared with float32 for this model"
    if difference is not None:
        known = f"which changes the labels of {100 * difference.share:.2g} % of the validation pixels"
        line = f"engine: {engine.replace('+bf16', '')} in bf16, {known} (--precision float32 switches it off)"
    if not fast:
        line += "; the processor has no instructions for it, so float32 is faster"
    return (line,)
