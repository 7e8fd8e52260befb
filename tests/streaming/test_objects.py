"""Tables and outlines of stores equal those of the whole image in memory, and each object is counted once."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from septa.model import Model
from septa.objects import confidence, measure_objects, to_geojson
from septa.streaming import StreamInput, StreamRequest, measuring

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def make_request(folder: Path, model: Model, **more: Any) -> StreamRequest:
    model.save(folder / "m.septa")
    return StreamRequest(
        model=folder / "m.septa",
        input=StreamInput(str(folder / "a.ome.zarr")),
        output=folder / "o.ome.zarr",
        table=folder / "o.csv",
        image_name="a",
        **more,
    )


def measure_whole(model: Model, image_cyx: Any, labels_yx: Any, measure: Any, least: float | None = None) -> Any:
    """Return kept labels and their table, from the labels of the store and the foreground of the whole image."""
    foreground_yx = model.task.probabilities(model.logits(image_cyx))[1]
    confidences = model.confidence_curve.apply(confidence(labels_yx, foreground_yx))
    if least is not None:
        dropped = np.unique(labels_yx[labels_yx > 0])[confidences < least]
        labels_yx = np.where(np.isin(labels_yx, dropped), 0, labels_yx)
        confidences = confidences[confidences >= least]
    return labels_yx, measure_objects(
        labels_yx, image_cyx, confidences=confidences, pixel_size_um=(0.5, 0.5), measure=measure
    )


def assert_same_rows(rows: list[Row], table: Any) -> None:
    assert [int(row["label"]) for row in rows] == table.columns["label"].tolist()
    assert list(rows[0])[1:] == list(table.columns)
    for name, expected in table.columns.items():
        found = [row[name] for row in rows]
        if expected.dtype == bool:
            assert found == [str(value).lower() for value in expected.tolist()]
            continue
        values = np.array([float(text or "nan") for text in found])
        if "distance" in name:  # found in another order where the nearest is far away
            np.testing.assert_allclose(values, expected, rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(values, expected.astype(np.float64), err_msg=name)


@pytest.mark.parametrize("measure", [("basic",), ("full",)])
def test_a_table_equals_that_of_the_whole_image(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: tuple[str, ...]
) -> None:
    monkeypatch.setattr(measuring, "_CELLS", (32,))  # smaller than the largest objects
    monkeypatch.setattr(measuring, "NEIGHBOUR_CONTEXT", 5)  # the nearest object often lies beyond
    model, image_cyx = kit.make("border", channels=2), kit.texture((2, 100, 140))
    kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX")
    done = kit.run(make_request(tmp_path, model, geojson=tmp_path / "o.geojson", measure=measure))
    labels_yx = kit.read(done.output, "m").astype(np.int64)
    _, table = measure_whole(model, image_cyx, labels_yx, measure)
    rows = read_rows(tmp_path / "o.csv")
    assert_same_rows(rows, table)
    assert {row["image"] for row in rows} == {"a"}
    assert len(rows) == done.objects == np.unique(labels_yx).size - 1
    crossing = table.columns["bbox_left"] // 64 < (table.columns["bbox_right"] - 1) // 64
    assert crossing.any()
    found = json.loads((tmp_path / "o.geojson").read_text())
    expected = json.loads(to_geojson(labels_yx, table))
    for one, other in zip(found["features"], expected["features"], strict=True):
        measured = one["properties"].pop("measurements"), other["properties"].pop("measurements")
        assert measured[0] == pytest.approx(measured[1], rel=1e-12)
    assert found == expected


def test_dropped_objects_are_neither_in_the_store_nor_in_the_table(kit: SimpleNamespace, tmp_path: Path) -> None:
    model, image_cyx = kit.make("border"), kit.texture((1, 130, 130))
    kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX")
    whole = kit.run(replace(make_request(tmp_path, model), output=tmp_path / "all.ome.zarr", table=None))
    all_yx = kit.read(whole.output, "m").astype(np.int64)
    done = kit.run(make_request(tmp_path, model, min_confidence=0.5, measure=("neighbours", "background")))
    kept_yx, table = measure_whole(model, image_cyx, all_yx, ("neighbours", "background"), 0.5)
    np.testing.assert_array_equal(kit.read(done.output, "m"), kept_yx)
    rows = read_rows(tmp_path / "o.csv")
    assert 0 < len(rows) < whole.objects
    assert (done.objects, done.dropped) == (len(rows), whole.objects - len(rows))
    assert_same_rows(rows, table)


def test_a_few_objects_far_apart_have_distances(kit: SimpleNamespace, tmp_path: Path) -> None:
    from septa.streaming.object_files import find_far_gap

    labels_yx = np.zeros((40, 6000), np.int64)
    labels_yx[3:20, 5:9], labels_yx[30:33, 5000:5700], labels_yx[0, 5990] = 7, 9, 4
    ids = np.array([4, 7, 9])
    boxes = np.array([[0, 5990, 1, 5991], [3, 5, 20, 9], [30, 5000, 33, 5700]])

    def read(rows: tuple[int, int], columns: tuple[int, int]) -> Any:
        return labels_yx[slice(*rows), slice(*columns)]

    table = measure_objects(labels_yx, pixel_size_um=(0.5, 0.25), measure="neighbours").columns
    for unit, name in (((1.0, 1.0), "nearest_edge_distance"), ((0.5, 0.25), "nearest_edge_distance_um")):
        found = [find_far_gap(read, ids, boxes, k, labels_yx.shape, unit) for k in range(3)]
        np.testing.assert_allclose(found, table[name])
    assert np.isnan(find_far_gap(read, ids[:1], boxes[:1], 0, (1, 5995), (1.0, 1.0)))


def test_a_stack_has_the_numbers_of_frames_and_planes(kit: SimpleNamespace, tmp_path: Path) -> None:
    model, image_tzyx = kit.make("border"), kit.texture((2, 2, 70, 66))
    kit.write_image(tmp_path / "a.ome.zarr", image_tzyx, "TZYX")
    done = kit.run(make_request(tmp_path, model, geojson=tmp_path / "o.geojson"))
    rows = read_rows(tmp_path / "o.csv")
    labels = kit.read(done.output, "m")
    for number in range(4):
        t, z = divmod(number, 2)
        page = [row for row in rows if row["image"] == f"a_{number:04d}"]
        assert {(row["frame"], row["plane"]) for row in page} == {(str(t), str(z))}
        assert [int(row["label"]) for row in page] == (np.unique(labels[t, z])[1:]).tolist()
        features = json.loads((tmp_path / f"o_{number:04d}.geojson").read_text())["features"]
        assert len(features) == len(page)
        assert {tuple(feature["geometry"]["plane"].items()) for feature in features} == {
            (("c", -1), ("z", z), ("t", t))
        }
        assert features[0]["properties"]["measurements"]["frame"] == t


def test_classes_are_those_of_the_whole_image(kit: SimpleNamespace, tmp_path: Path) -> None:
    model, image_cyx = kit.make("classes"), kit.texture((1, 130, 140))
    kit.write_image(tmp_path / "a.ome.zarr", image_cyx, "CYX")
    done = kit.run(make_request(tmp_path, model))
    labels_yx = kit.read(done.output, "m").astype(np.int32)
    class_of_id = model.task.classify(labels_yx, model.logits(image_cyx))
    np.testing.assert_array_equal(kit.read(done.output, "m_classes"), model.labels.raw_values[class_of_id[labels_yx]])
    names = [model.labels.class_names[class_of_id[int(row["label"])]] for row in read_rows(tmp_path / "o.csv")]
    assert [row["class"] for row in read_rows(tmp_path / "o.csv")] == names
    assert len(set(names)) == 2


def test_an_interrupted_run_gives_the_same_files(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kit.make("border")
    kit.write_image(tmp_path / "a.ome.zarr", kit.texture((1, 100, 130)), "CYX")
    request = make_request(tmp_path, model, min_confidence=0.5)
    kit.run(request)
    expected, store = (tmp_path / "o.csv").read_bytes(), kit.files(request.output)
    done, calls = measuring.measure_block, []

    def fail(worker: Any, block: Any) -> None:
        calls.append(block.index)
        if len(calls) == 9:
            raise KeyboardInterrupt
        done(worker, block)

    again = replace(request, overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        from septa.streaming import executor

        patch.setattr(executor, "measure_block", fail)
        with pytest.raises(Exception, match="interrupted"):
            kit.run(again)
    kit.run(replace(request, overwrite=False))
    assert ((tmp_path / "o.csv").read_bytes(), kit.files(request.output)) == (expected, store)


def test_a_missing_table_of_a_complete_store_is_an_error(kit: SimpleNamespace, tmp_path: Path) -> None:
    kit.write_image(tmp_path / "a.ome.zarr", kit.texture((1, 66, 66)), "CYX")
    request = make_request(tmp_path, kit.make("border"))
    kit.run(request)
    assert kit.run(request).already_complete
    (tmp_path / "o.csv").unlink()
    with pytest.raises(Exception, match="this file is missing, but the output"):
        kit.run(request)
    (tmp_path / "o.csv").write_text("mine")
    with pytest.raises(Exception, match="the file was changed after septa wrote it"):
        kit.run(replace(request, output=tmp_path / "p.ome.zarr"))


def test_an_empty_image_gives_a_table_without_rows(kit: SimpleNamespace, tmp_path: Path) -> None:
    kit.write_image(tmp_path / "a.ome.zarr", np.zeros((1, 66, 66), np.uint16), "CYX")
    model = kit.make("border")
    kit.run(
        make_request(
            tmp_path,
            replace(model, decoding=replace(model.decoding, foreground=0.999, seed=0.999)),
            geojson=tmp_path / "g.geojson",
        )
    )
    assert (tmp_path / "o.csv").read_text().count("\n") == 1
    assert json.loads((tmp_path / "g.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def test_an_ome_tiff_has_a_table_too(kit: SimpleNamespace, tmp_path: Path) -> None:
    kit.write_image(tmp_path / "a.ome.zarr", kit.texture((1, 100, 100)), "CYX")
    request = make_request(tmp_path, kit.make("border"))
    kit.run(request)
    expected = (tmp_path / "o.csv").read_bytes()
    kit.run(replace(request, output=tmp_path / "o.ome.tif", table=tmp_path / "t.csv"))
    assert (tmp_path / "t.csv").read_bytes() == expected
