"""Check the arithmetic of calibrations."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from septa.images.calibration import Calibration

SIZES = st.floats(1e-3, 1e3)
CALIBRATIONS = st.builds(
    Calibration,
    pixel_size_um=st.none() | st.tuples(SIZES, SIZES),
    z_step_um=st.none() | SIZES,
    time_step_s=st.none() | SIZES,
    origin_um=st.tuples(SIZES, SIZES, SIZES),
    time_origin_s=SIZES,
    channel_names=st.lists(st.text(max_size=3), max_size=3).map(tuple),
)


@given(CALIBRATIONS)
def test_json_round_trip(calibration: Calibration) -> None:
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    assert calibration.turn().turn() == calibration
    assert calibration.rescale((1, 1, 1)) == calibration.crop(0, 0) == calibration


def test_crops_and_levels() -> None:
    whole = Calibration(pixel_size_um=(0.5, 0.25), z_step_um=2.0, origin_um=(1.0, 10.0, 20.0))
    assert whole.crop(4, 8).origin_um == (1.0, 12.0, 22.0)
    assert whole.rescale((2, 2, 4)).pixel_size_um == (1.0, 1.0)
    assert whole.rescale((2, 2, 4)).z_step_um == 4.0
    assert whole.turn().pixel_size_um == (0.25, 0.5)
    assert whole.turn().origin_um == (1.0, 20.0, 10.0)
    assert Calibration().crop(3, 3) == Calibration()
