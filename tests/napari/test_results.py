"""Results of septa as napari layers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from septa.images import Calibration, store, write_labels
from septa.napari import results
from septa.objects import measure_objects, write_table

FILES = Path(__file__).parents[1] / "files" / "v0.1"


def make_store(path: Path, labels: np.ndarray) -> Path:
    spec = store.StoreSpec(
        kind="labels",
        name="cells",
        axes="ZYX",
        shape=labels.shape,
        dtype=np.dtype(np.uint32),
        block=64,
        chunk=32,
        calibration=Calibration(pixel_size_um=(0.5, 0.25), z_step_um=2.0),
        attributes={"asked": "x"},
    )
    store.create_store(path, [spec])
    for level in range(len(spec.levels)):
        for index in spec.blocks(level):
            if level:
                store.build_pyramid_block(path, spec, level, index)
                continue
            _, z, y, x = index
            store.write_store_block(path, spec, 0, index, labels[z, 64 * y : 64 * y + 64, 64 * x : 64 * x + 64])
    store.finish_store(path, [spec])
    return path


def test_a_store_becomes_labels_of_all_levels(tmp_path):
    labels = np.arange(2 * 70 * 90, dtype=np.uint32).reshape(2, 70, 90)
    path = make_store(tmp_path / "o.ome.zarr", labels)
    ((levels, options, kind),) = results.find_reader(str(path))(str(path))
    assert (kind, options["name"], options["scale"]) == ("labels", "cells", (2.0, 0.5, 0.25))
    assert [level.shape for level in levels] == [(2, 70, 90), (2, 35, 45), (2, 18, 23)]
    np.testing.assert_array_equal(levels[0], labels)
    np.testing.assert_array_equal(levels[0][1, 60:66, 3:80:2], labels[1, 60:66, 3:80:2])
    np.testing.assert_array_equal(levels[0][:, 5], labels[:, 5])
    np.testing.assert_array_equal(levels[0][-1, ::-1, 4], labels[-1, ::-1, 4])
    np.testing.assert_array_equal(levels[1], labels[:, ::2, ::2])


def test_a_label_file_has_the_rows_of_its_table(tmp_path):
    labels_yx = np.zeros((20, 30), np.int32)
    labels_yx[2:5, 3:9], labels_yx[9:15, 20:30] = 4, 7
    write_labels(tmp_path / "a.tif", labels_yx, calibration=Calibration(pixel_size_um=(0.5, 0.5)))
    table = measure_objects(labels_yx)
    tables = [type(table)({"image": np.full(2, name), **table.columns}) for name in ("b", "a")]
    write_table(tmp_path / "objects.csv", tables)
    ((found, options, kind),) = results.open_results(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, labels_yx)
    assert (kind, options["scale"]) == ("labels", (0.5, 0.5))
    assert options["features"]["index"].tolist() == [4, 7]
    assert options["features"]["area"].tolist() == [18, 60]
    assert options["features"]["touches_edge"].tolist() == [False, True]


def test_a_model_is_offered_by_the_widget(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "chosen_models", [])
    path = tmp_path / "own.septa"
    shutil.copy(FILES / "instances.septa", path)
    assert results.find_reader(str(path))(str(path)) == [(None,)]
    assert results.chosen_models == [str(path)]


def test_other_paths_are_left_to_other_readers(tmp_path):
    (tmp_path / "other.zarr").mkdir()
    for name in ("other.zarr", "absent.zarr", "absent.septa"):
        assert results.find_reader(str(tmp_path / name)) is None
    assert results.find_reader(["a.zarr", "b.zarr"]) is None
    with pytest.raises(Exception, match="this is not a label image"):
        results.open_results(tmp_path / "a.csv")
