"""The scripts in ``models/``: what is held out stays out of the training folder, and cards state what was done."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from septa.images import read_image, write_image, write_labels
from septa.synthetic import draw_cells

MODELS = Path(__file__).resolve().parents[1] / "models"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MODELS))
        yield
    for name in ("sources", "drawn", "copies", "prepare", "score", "pictures", "card", "build"):
        sys.modules.pop(name, None)


def as_bytes(image_cyx: np.ndarray) -> np.ndarray:
    return np.rint(image_cyx / image_cyx.max() * 255).astype(np.uint8)


def as_red(labels_yx: np.ndarray) -> np.ndarray:
    """Few red values, as in BBBC039: one for all objects that do not touch."""
    red_yx = (1 + labels_yx % 20) * (labels_yx > 0)
    return np.stack([red_yx, np.zeros_like(red_yx), np.zeros_like(red_yx)]).astype(np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    drawings = [draw_cells(128, 160, 5, index) for index in range(12)]
    for well, drawing in zip(("A01", "B02", "K03", "M04", "P05"), drawings):
        name = f"IXMtest_{well}_s1_w1FF"
        write_image(root / "clone" / "cell nuclei" / "images" / f"{name}.tif", drawing.image_cyx)
        write_image(root / "clone" / "cell nuclei" / "masks" / f"{name}.png", as_red(drawing.labels_yx))
    # Copies of A01, K03 and M04, and others.
    for index in (0, 2, 3, 5, 6, 7, 8, 9):
        write_image(root / "dsb" / "images" / f"d{index}.png", as_bytes(drawings[index].image_cyx))
        write_labels(root / "dsb" / "labels" / f"d{index}.png", drawings[index].labels_yx)
    folder = "mnfinder/training-data/2023-01-01_RPE1"
    write_image(root / folder / "images" / "1.tif", drawings[10].image_cyx)
    write_image(root / folder / "nucleus_masks" / "1.png", as_red(drawings[10].labels_yx))
    with zipfile.ZipFile(root / "mnfinder.whl", "w") as wheel:
        for path in ("images/1.tif", "nucleus_masks/1.png"):
            wheel.write(root / folder / path, f"{folder}/{path}")
    (root / "held.txt").write_text("d5\nd0\n")
    import prepare

    sources = ["--dsb", root / "dsb", "--bbbc039", root / "clone", "--mnfinder", root / "mnfinder.whl"]
    with pytest.MonkeyPatch.context() as patch:
        options = ["nuclei", root / "out", *sources, "--drawn", 6, "--held", root / "held.txt"]
        patch.setattr(sys, "argv", ["prepare.py", *map(str, options)])
        prepare.main()
    return root / "out"


def read_manifest(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_reserved_and_held_out_images_are_never_trained_on(prepared: Path) -> None:
    rows = read_manifest(prepared)
    roles = {name: row["role"] for name, row in rows.items()}
    assert roles["bbbc039_B02_s1"] == "train"
    assert roles["bbbc039_K03_s1"] == "held/bbbc039"
    assert roles["bbbc039_M04_s1"] == roles["bbbc039_P05_s1"] == "reserved"
    assert rows["bbbc039_M04_s1"]["objects"] == ""
    # Copies: of a reserved and a held-out well the other source is dropped, of a held-out stem the well.
    assert (roles["dsb_d3"], rows["dsb_d3"]["note"]) == ("dropped", "copy of bbbc039_M04_s1")
    assert (roles["dsb_d2"], rows["dsb_d2"]["note"]) == ("dropped", "copy of bbbc039_K03_s1")
    assert (roles["dsb_d0"], roles["bbbc039_A01_s1"]) == ("held/dsb_fluo", "dropped")
    assert (roles["dsb_d5"], roles["dsb_d6"]) == ("held/dsb_fluo", "train")
    for folder, role in (("train", "train"), ("held/bbbc039", "held/bbbc039"), ("held/dsb_fluo", "held/dsb_fluo")):
        written = {path.stem for path in (prepared / folder / "images").iterdir()}
        assert written == {name for name in roles if roles[name] == role}
        assert written == {path.stem for path in (prepared / folder / "labels").iterdir()}
    assert not any("M04" in path.name or "P05" in path.name for path in prepared.rglob("*"))


def test_labels_number_the_objects_of_a_source(prepared: Path) -> None:
    drawn = draw_cells(128, 160, 5, 1).labels_yx
    written = read_image(prepared / "train" / "labels" / "bbbc039_B02_s1.png")[0]
    assert len(np.unique(written)) == len(np.unique(drawn))
    assert ((written > 0) == (drawn > 0)).all()
    assert read_manifest(prepared)["bbbc039_B02_s1"]["objects"] == str(drawn.max())


def test_every_style_is_drawn(prepared: Path) -> None:
    rows = [row for row in read_manifest(prepared).values() if row["source"] == "drawn"]
    assert {row["file"].rpartition(", ")[2] for row in rows} == {
        *("plain", "dim", "blurred", "noisy", "inverted", "stained")
    }
    image = {row["file"].rpartition(", ")[2]: next((prepared / "train").rglob(f"{row['name']}.*")) for row in rows}
    labels = read_image(prepared / "train" / "labels" / f"{image['inverted'].stem}.png")[0]
    inverted = read_image(image["inverted"])[0]
    assert inverted[labels > 0].mean() < inverted[labels == 0].mean()
    assert len(read_image(image["stained"])) == 3


def test_versions_of_an_image_show_the_same_objects() -> None:
    from score import VERSIONS, count_found

    drawing = draw_cells(64, 80, 1)
    for name, change in VERSIONS.items():
        image_cyx, labels_yx = change(drawing.image_cyx, drawing.labels_yx)
        assert image_cyx.shape[1:] == labels_yx.shape
        assert labels_yx.shape == {"x 2": (128, 160), "x 0.5": (32, 40)}.get(name, (64, 80))
        assert image_cyx[0][labels_yx > 0].mean() > image_cyx[0][labels_yx == 0].mean()
    areas = np.bincount(drawing.labels_yx.ravel())[1:]
    found, all_of_them = count_found(drawing.labels_yx, np.where(drawing.labels_yx == 1, 1, 0))
    assert found.sum() == 1
    assert all_of_them.tolist() == np.histogram(areas, (0, 32, 64, 256, 512, 2048, 1 << 62))[0].tolist()


@pytest.mark.parametrize("copy", [False, True])
def test_a_card_states_data_scores_and_training(prepared: Path, copy: bool) -> None:
    from card import fill_card

    one = {"source": "dsb2018", "modality": "fluorescence", "images": 2, "objects": 31, "flagged": 1}
    one |= {
        "ap50": 0.9,
        "mean_ap": 0.7,
        "precision": 0.95,
        "recall": 0.94,
        "versions": {"as it is": 0.9, "8 bit": 0.89},
    }
    one |= {"sizes": [[0, 1, 4], [32, 0, 0]], "per_image": {"dsb_d5": 0.9}}
    scores = {"folders": {"dsb_fluo": {**one, "copy": copy}}}
    training = {"command": "septa train x", "seed": 3, "minutes": 61.2, "processor": "CPU (2 cores)"}
    training |= {"septa": "0.1.0", "megabytes": 4.2, "parity": "scores stay"}
    text = fill_card("nuclei", prepared, training, json.loads(json.dumps(scores)), ["a/nuclei_dsb_fluo.png"])
    head = yaml.safe_load(text.split("---")[1])
    assert set(head) == {"summary", "channels", "objects", "licence"}
    row = "| fluorescence | 2 | 31 | 0.900 | 0.700 | 0.950 | 0.940 | 1 |"
    assert f"| dsb_fluo (dsb2018{'; copy' if copy else ''}) {row}" in text
    assert ("without these images" in text) == copy
    assert "| dsb_fluo | 0.25 of 4 | - |" in text
    assert "2 images of wells M to P of BBBC039 are reserved" in text
    assert "Seed 3, 61 minutes on CPU (2 cores), septa 0.1.0; the model file has 4.2 MB." in text
    assert "](a/nuclei_dsb_fluo.png)" in text
    assert "$" not in text


def test_recipes_of_shipped_models_are_valid() -> None:
    from septa.recipe import Recipe

    paths = sorted(MODELS.glob("*.yaml"))
    assert paths
    for path in paths:
        Recipe.model_validate(yaml.safe_load(path.read_text()))
        assert (MODELS / f"{path.stem}.md").is_file()
