"""Test the parts of the report on objects: drawings and numbers equal the counts."""

from __future__ import annotations

import re

import numpy as np

from septa.metrics.scores import LabelPair, evaluate_labels
from septa.objects.calibration import calibrate
from septa.report.scoreboard import render_calibration, render_scores


def test_the_reliability_curve_has_a_point_for_each_bin_with_objects() -> None:
    sure, right = np.array([0.15, 0.62, 0.68, 0.95]), np.array([False, True, False, True])
    markup = render_calibration(calibrate([(sure, right)]))
    curve, diagonal = sorted(re.findall(r'<polyline points="([^"]*)"', markup), key=len, reverse=True)
    places = np.array([[float(value) for value in point.split(",")] for point in curve.split()])
    first, last = np.array([[float(value) for value in point.split(",")] for point in diagonal.split()])
    expected = np.array([[0.15, 0.0], [0.65, 0.5], [0.95, 1.0]])
    np.testing.assert_allclose(places, first + expected * (last - first), atol=0.1)
    rows = re.findall(r"<tr><td>(.*?)</td><td.*?>(.*?)</td><td.*?>(.*?)</td><td.*?>(.*?)</td></tr>", markup)
    assert len(rows) == 10
    assert rows[6] == ("0.6–0.7", "2", "0.650", "0.500")
    assert rows[0] == ("0.0–0.1", "0", "–", "–")
    assert "over 4 predicted objects" in markup
    assert f"{(0.15 + 2 * 0.15 + 0.05) / 4:.4f}" in markup


def test_without_objects_there_is_nothing_to_calibrate() -> None:
    assert render_calibration({}) == render_calibration(calibrate([])) == ""


def test_classes_of_objects_have_a_row_each() -> None:
    truth_yx, prediction_yx = np.array([[4, 0, 8, 0, 10]]), np.array([[4, 0, 7, 0, 0]])
    class_of_id = np.array([0, 0, 0, 0, 1, 0, 0, 1, 2, 0, 1])
    items = [LabelPair("a", truth_yx, prediction_yx, class_of_id, class_of_id)]
    names = ("background", "<round>", "long")
    markup = render_scores(evaluate_labels(items, ["background", "object"], instances=True, object_classes=names))
    assert "F1 at IoU 0.5, &lt;round&gt;" in markup
    assert "2 in the ground truth, 2 predicted" in markup
    assert "1 in the ground truth, 0 predicted" in markup
