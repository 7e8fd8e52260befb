"""What the processor can compute in 8 bits."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exact_sums() -> bool:
    """Return False on an x86 processor without VNNI, on which sums of 8-bit products saturate at 16 bits."""
    facts = Path("/proc/cpuinfo")
    flags = facts.read_text(encoding="utf-8").split() if facts.exists() else []
    return "avx2" not in flags or "avx512_vnni" in flags or "avx_vnni" in flags
