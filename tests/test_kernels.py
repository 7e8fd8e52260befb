from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import skimage.measure
from hypothesis import given
from hypothesis.extra import numpy as hnp

from septa.kernels import Kernel, label_mask, label_parts


def add_up(values: np.ndarray, sums: np.ndarray) -> None:
    total = 0.0
    for i in range(values.size):
        total += values[i]
        sums[i] = total


@given(
    hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
        elements=hnp.from_dtype(np.dtype(np.int64), min_value=-1, max_value=3),
    )
)
def test_parts_of_equal_ids_are_those_of_scikit_image(ids_yx: np.ndarray) -> None:
    expected_yx = skimage.measure.label(np.maximum(ids_yx, 0), background=0, connectivity=1)
    np.testing.assert_array_equal(label_parts(ids_yx), expected_yx)


def test_it_does_what_the_function_does() -> None:
    values, sums, expected = np.arange(7.0), np.empty(7), np.empty(7)
    kernel = Kernel(add_up)
    for _ in range(2):
        kernel(values, sums)
    add_up(values, expected)
    np.testing.assert_array_equal(sums, expected)
    assert kernel.__name__ == "add_up"


def test_threads_that_come_together_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    compile_one, asked = numba.njit, []

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return compile_one(*arguments, **options)

    monkeypatch.setattr(numba, "njit", counted)
    kernel, together = Kernel(add_up), threading.Barrier(4)

    def run(seed: int) -> np.ndarray:
        values, sums = np.random.default_rng(seed).random(50), np.empty(50)
        together.wait(timeout=60)
        kernel(values, sums)
        np.testing.assert_allclose(sums, values.cumsum())
        return sums

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert len(asked) == 1
    assert asked[0]["nogil"]


def test_without_a_usable_cache_it_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    compile_one, asked = numba.njit, []

    def without_cache(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_one(*arguments, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    values, sums = np.arange(3.0), np.empty(3)
    Kernel(add_up)(values, sums)
    assert sums.tolist() == [0, 1, 3]
    assert asked == [True, False]


LOADED = """
import sys
from septa import kernels
assert "numba" not in sys.modules
kernels.load()
assert "numba.np.arraymath" in sys.modules  # one of the last modules that numba loads with its first kernel
"""


def test_numba_can_be_made_ready_before_the_first_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def flood_fill(mask_yx: np.ndarray) -> list[list[tuple[int, int]]]:
    """Oracle: the pixels of each 4-connected region."""
    left = set(map(tuple, np.argwhere(mask_yx).tolist()))
    regions = []
    while left:
        region = [left.pop()]
        for y, x in region:  # the list grows during the loop
            for near in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if near in left:
                    left.remove(near)
                    region.append(near)
        regions.append(sorted(region))
    return sorted(regions)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9)))
def test_regions_equal_flood_fill(mask_yx: np.ndarray) -> None:
    before_yx = mask_yx.copy()
    regions_yx = label_mask(mask_yx)
    np.testing.assert_array_equal(mask_yx, before_yx)
    assert regions_yx.dtype == np.int32
    numbers = range(1, int(regions_yx.max(initial=0)) + 1)
    parts = [sorted(map(tuple, np.argwhere(regions_yx == number).tolist())) for number in numbers]
    assert sorted(parts) == flood_fill(mask_yx)
    np.testing.assert_array_equal(regions_yx > 0, mask_yx)


def test_regions_of_strided_masks() -> None:
    mask_yx = np.random.default_rng(0).random((40, 30)) < 0.5
    strided_yx = mask_yx.T[::2, ::-1]
    np.testing.assert_array_equal(label_mask(strided_yx), label_mask(strided_yx.copy()))
