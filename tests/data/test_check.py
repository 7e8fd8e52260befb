"""Each kind of damage is written to disk and must be reported with its path, together with all others."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from septa.data import check_page
from septa.data.check import check_dataset
from septa.data.check_page import render_check
from septa.data.check_result import DatasetCheck, Problem
from septa.data.fingerprint import digest_array
from septa.images.write import write_image, write_labels
from septa.recipe import DataSettings

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def texture(seed: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 3)
    return (128 + 30 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def blobs(seed: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    return np.where(texture(seed, shape) > 150, 255, 0).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folder of ten sound pairs."""
    for seed in range(10):
        save(tmp_path / "images" / f"{seed}.png", texture(seed))
        save(tmp_path / "labels" / f"{seed}.png", blobs(seed))
    return tmp_path


def problems(check: DatasetCheck, path: Path | str, severity: str = "error") -> list[Problem]:
    return [found for found in check.problems if found.where == str(path) and found.severity == severity]


def the_problem(check: DatasetCheck, path: Path | str, severity: str, pattern: str) -> Problem:
    """Return the only problem of the whole check."""
    assert len(check.problems) == 1, list(map(str, check.problems))
    (found,) = problems(check, path, severity)
    assert re.search(pattern, found.description), found.description
    assert check.fatal == (severity == "error")
    return found


def test_sound_data_have_no_problems(data: Path) -> None:
    calls: list[tuple[int, int]] = []
    check = check_dataset(data, progress=lambda done, total: calls.append((done, total)))
    assert check.problems == ()
    assert not check.fatal
    assert [facts.name for facts in check.facts] == [str(seed) for seed in range(10)]
    assert check.fingerprint is not None
    assert check.mapping is not None
    assert check.mapping.values == (0, 255)
    share = np.mean([blobs(seed) > 0 for seed in range(10)])
    assert check.fingerprint.class_shares == pytest.approx((1 - share, share))
    assert sorted(check.train + check.validation) == [str(seed) for seed in range(10)]
    assert len(check.validation) == 2
    assert check.mapping.describe() in check.notes
    assert calls == [(done, 20) for done in range(1, 21)]


def test_the_split_is_repeated_by_its_seed(data: Path) -> None:
    assert check_dataset(data, seed=3).validation == check_dataset(data, seed=3).validation
    assert len({check_dataset(data, seed=seed).validation for seed in range(6)}) > 1


def test_everything_is_reported_at_once(data: Path) -> None:
    truncated = data / "images" / "0.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    empty = data / "labels" / "1.png"
    empty.write_bytes(b"")
    small = save(data / "labels" / "2.png", blobs(2)[:50])
    turned = save(data / "labels" / "3.png", np.rot90(blobs(3)))
    nan = np.array(texture(4), np.float32)
    nan[3, 3] = np.nan
    (data / "images" / "4.png").unlink()
    nan_path = save(data / "images" / "4.tif", nan)
    constant = save(data / "images" / "5.png", np.full((64, 80), 9, np.uint8))
    color = save(data / "images" / "6.png", np.stack([texture(6)] * 3, axis=2))
    copied = data / "images" / "7.png"
    (data / "images" / "8.png").write_bytes(copied.read_bytes())
    tiny = save(data / "images" / "9.png", texture(9, (20, 70)))
    save(data / "labels" / "9.png", blobs(9, (20, 70)))
    check = check_dataset(data)
    assert check.fatal
    expected = {
        (truncated, "error"): "",
        (empty, "error"): "",
        (small, "error"): r"50 x 80 pixels .* 64 x 80",
        (turned, "error"): r"80 x 64 pixels .* 64 x 80",
        (nan_path, "error"): "NaN",
        (constant, "warning"): "same value",
        (color, "warning"): "^this image has 3 channels, but 8 other images have 1 channel$",
        (copied, "warning"): r"identical to 8, but the labels differ",
        (tiny, "warning"): "20 x 70",
    }
    for (path, severity), pattern in expected.items():
        assert any(re.search(pattern, item.description) for item in problems(check, path, severity)), (path, pattern)
    assert any(
        "has the dtype float32, but 8 other" in item.description for item in problems(check, nan_path, "warning")
    )
    assert len(check.problems) == len(expected) + 1, list(map(str, check.problems))
    assert all(item.description and item.remedy and not item.description.endswith(".") for item in check.problems)
    severities = [item.severity for item in check.problems]
    assert severities == sorted(severities)
    assert "by 90 degrees" in problems(check, turned)[0].remedy


def test_unpaired_files_are_all_named(data: Path) -> None:
    gone = [data / "labels" / "3.png", data / "labels" / "7.png"]
    for path in gone:
        path.unlink()
    extra = save(data / "labels" / "lonely.png", blobs(0))
    constant = save(data / "images" / "5.png", np.full((64, 80), 9, np.uint8))
    check = check_dataset(data)
    assert check.fatal
    for path in (data / "images" / "3.png", data / "images" / "7.png", extra):
        assert len(problems(check, path)) == 1
    assert problems(check, data / "images" / "3.png")[0].description == "the image has no labels"
    assert problems(check, extra)[0].description == "the labels have no image"
    assert "same value" in problems(check, constant, "warning")[0].description
    assert [item.name for item in check.facts] == [str(seed) for seed in range(10) if seed not in (3, 7)]


def test_a_missing_folder_is_one_problem(tmp_path: Path) -> None:
    check = check_dataset(tmp_path / "nowhere")
    the_problem(check, tmp_path / "nowhere", "error", "")
    assert check.pairing is None
    assert "nowhere" in render_check(check)


def test_jpeg_labels_are_refused(data: Path) -> None:
    path = data / "labels" / "4.png"
    Image.fromarray(blobs(4)).save(path, "JPEG")
    the_problem(check_dataset(data), path, "error", "(?i)jpeg")


def test_turned_labels_are_refused(data: Path) -> None:
    path = data / "labels" / "4.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(blobs(4)).save(path, exif=exif)
    assert any(re.search("(?i)exif|orient|turn", item.description) for item in problems(check_dataset(data), path))


def test_interpolated_labels_are_refused(data: Path) -> None:
    path = data / "labels" / "4.png"
    smooth = ndimage.gaussian_filter(blobs(4).astype(float), 1).astype(np.uint8)
    save(path, smooth)
    check = check_dataset(data)
    assert check.fatal
    assert problems(check, path)
    assert len(check.facts) == 10


def test_stray_values_are_reported(data: Path) -> None:
    labels = blobs(4)
    labels[10:13, 10:13] = 77
    path = save(data / "labels" / "4.png", labels)
    check = check_dataset(data, settings=DataSettings(values=(0, 255)))
    assert any("77" in item.description for item in problems(check, path))


def test_ignored_pixels_do_not_count(data: Path) -> None:
    save(data / "labels" / "4.png", np.full((64, 80), 7, np.uint8))
    check = check_dataset(data, settings=DataSettings(values=(0, 255), ignore_label=7))
    the_problem(check, data / "images" / "4.png", "warning", "every pixel of the image is ignored")
    assert check.fingerprint is not None
    share = np.mean([blobs(seed) > 0 for seed in range(10) if seed != 4])
    assert check.fingerprint.class_shares[1] == pytest.approx(share)


def test_absent_and_rare_classes(data: Path) -> None:
    for seed in range(10):
        labels = (blobs(seed) > 0).astype(np.uint8)
        labels[:4, :4] = 2 if seed == 0 else 0
        save(data / "labels" / f"{seed}.png", labels)
    settings = DataSettings(encoding="index", values=(0, 1, 2, 3), class_names=("ground", "cell", "speck", "none"))
    check = check_dataset(data, settings=settings)
    assert not check.fatal
    rare, absent = problems(check, data, "warning")
    assert rare.description == "the class 'speck' covers only 0.031 % of the labelled pixels"
    assert absent.description == "the class 'none' is in no label image"


def test_a_class_on_one_side_of_the_split_only(data: Path) -> None:
    for seed in range(10):
        labels = (blobs(seed) > 0).astype(np.uint8)
        labels[:20, :20] = 2 if seed == 0 else 0
        save(data / "labels" / f"{seed}.png", labels)
    check = check_dataset(data)
    missing = "training" if "0" in check.validation else "validation"
    the_problem(check, data, "warning", f"the class 'class 2' is in no {missing} image")


def test_labels_without_objects_are_an_error(data: Path) -> None:
    for seed in range(10):
        save(data / "labels" / f"{seed}.png", np.zeros((64, 80), np.uint8))
    check = check_dataset(data, settings=DataSettings(values=(0, 255)))
    the_problem(check, data, "error", "only the class 'background'")


def test_identical_pairs_are_a_warning_and_stay_together(data: Path) -> None:
    for folder in ("images", "labels"):
        (data / folder / "8.png").write_bytes((data / folder / "7.png").read_bytes())
    parted = set()
    for seed in range(8):
        check = check_dataset(data, seed=seed)
        assert ("7" in check.train) == ("8" in check.train)
        pattern = "^the image and its labels are identical to those of 8(; |$)"
        found = the_problem(check, data / "images" / "7.png", "warning", pattern)
        parted.add("septa keeps them on one side" in found.description)
    assert parted == {True, False}


def test_near_duplicates_are_a_warning_and_stay_together(data: Path) -> None:
    save(data / "images" / "8.png", (texture(7)[::-1] * 0.8 + 10).astype(np.uint8))
    check = check_dataset(data)
    the_problem(check, data / "images" / "7.png", "warning", r"the same objects as 8 \(")
    assert ("7" in check.train) == ("8" in check.train)


def test_copies_only_can_still_be_split_with_a_warning(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", texture(0))
        save(tmp_path / "labels" / f"{name}.png", blobs(0))
    check = check_dataset(tmp_path)
    assert not check.fatal
    assert len(check.train) == len(check.validation) == 1
    assert "validation shows objects of training images" in problems(check, tmp_path, "warning")[0].description


def test_a_part_of_a_single_image_is_held_out(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", texture(0))
    save(tmp_path / "labels" / "a.png", blobs(0))
    check = check_dataset(tmp_path)
    assert not check.problems
    assert (check.train, check.validation) == (("a#training",), ("a#validation",))
    assert check.held_out.startswith("there is only one image, so the 20% at its ")
    assert f"validation: {check.held_out}" in check.notes
    size = f"{texture(0).shape[0]} x {texture(0).shape[1]} pixels (height x width)"
    assert f"images: 1 read, {size}, 1 channel, uint8" in check.notes
    assert {item.whole_digest for item in check.facts} == {digest_array(texture(0)[None])}


def test_a_part_of_each_image_is_held_out_if_all_are_in_one_group(data: Path) -> None:
    check = check_dataset(data, settings=DataSettings(group="png"))
    assert not check.fatal
    assert len(check.train) == len(check.validation) == 10
    assert any("all 10 images belong together, so 20% of each" in note for note in check.notes)


def test_a_single_image_may_be_too_small_to_be_cut(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", texture(0)[:24, :24])
    save(tmp_path / "labels" / "a.png", blobs(0)[:24, :24])
    check = check_dataset(tmp_path)
    assert [item.description for item in check.problems if item.severity == "error"] == [
        "the image is too small (24 x 24 pixels) to hold out a part of it"
    ]


def test_equal_labels_of_different_images_are_a_warning(data: Path) -> None:
    for number in range(5):
        save(data / "labels" / f"{number}.png", blobs(0))
    found = problems(check_dataset(data), data, "warning")
    assert [item.description for item in found] == ["5 of 10 different images have exactly the same labels"]
    save(data / "labels" / "4.png", blobs(4))
    assert not problems(check_dataset(data), data, "warning")


def test_soft_masks_are_read_with_a_threshold(tmp_path: Path) -> None:
    for number in range(3):
        mask = (blobs(number) > 0).astype(np.uint8) * 255
        soft = cv2.GaussianBlur(mask, (0, 0), 1.5)
        save(tmp_path / "images" / f"{number}.png", texture(number))
        (tmp_path / "labels").mkdir(exist_ok=True)
        if number:
            Image.fromarray(soft).save(tmp_path / "labels" / f"{number}.jpg", quality=80)
        else:
            save(tmp_path / "labels" / "0.png", soft)
    refused = check_dataset(tmp_path)
    assert refused.fatal
    assert all("data.threshold=128" in item.remedy for item in refused.problems if item.severity == "error")
    check = check_dataset(tmp_path, settings=DataSettings(threshold=128))
    assert not check.fatal
    assert check.mapping is not None
    assert (check.mapping.kind, check.mapping.values) == ("binary", (0, 255))
    assert "labels: values of at least 128 are foreground (data.threshold)" in check.notes
    for item in check.facts:
        labels = (blobs(int(item.name)) > 0).sum()
        assert abs(item.class_pixels[1] - labels) < 0.1 * labels
    for settings in (DataSettings(threshold=128, encoding="index"), DataSettings(threshold=1000)):
        assert check_dataset(tmp_path, settings=settings).fatal


def test_blank_images_are_one_warning(data: Path) -> None:
    for name in ("3", "7"):
        save(data / "images" / f"{name}.png", np.full((64, 80), 100, np.uint8))
    found = [item for item in check_dataset(data).problems if "same value" in item.description]
    assert len(found) == 1
    assert [Path(name).name for name in found[0].files] == ["3.png", "7.png"]


def test_the_normalisation_of_each_image_ends_the_warning_about_the_dtype(data: Path) -> None:
    save(data / "images" / "4.png", texture(4).astype(np.uint16) * 257)
    settings = DataSettings(), DataSettings(normalization="image")
    found = [
        [item for item in check_dataset(data, settings=each).problems if "dtype" in item.description]
        for each in settings
    ]
    assert [len(items) for items in found] == [1, 0]
    assert "data.normalization=image" in found[0][0].remedy


@pytest.mark.parametrize("mixed", [False, True])
def test_the_remedy_for_wrong_channels_works(data: Path, mixed: bool) -> None:
    for index in range(10):
        count = 2 + (mixed and index == 0)
        (data / "images" / f"{index}.png").unlink()
        planes = np.stack([texture(10 * index + channel) for channel in range(count)])
        write_image(data / "images" / f"{index}.tif", planes)
    check = check_dataset(data, settings=DataSettings(channels=None if mixed else 4))
    remedies = {item.remedy for item in check.problems if "the net takes" in item.description}
    assert remedies == {"Give all images the same channels" if mixed else "Set data.channels=2, or leave it out"}


def test_channels_that_do_not_fit_are_an_error(data: Path) -> None:
    path = save(data / "images" / "4.png", np.stack([texture(seed) for seed in (4, 5, 6)], axis=2))
    assert not check_dataset(data).fatal
    check = check_dataset(data, settings=DataSettings(channels=1))
    assert [item.description for item in problems(check, path)] == ["the image has 3 channels and the net takes 1"]
    assert check.fingerprint is not None
    assert check.fingerprint.images == 9


def test_pages_of_a_stack_are_named(tmp_path: Path) -> None:
    stack = np.stack([texture(seed) for seed in range(12)])
    stack[5] = 3
    save(tmp_path / "train-volume.tif", stack)
    save(tmp_path / "train-labels.tif", np.stack([blobs(seed) for seed in range(12)]))
    path = f"{tmp_path / 'train-volume.tif'} page 5"
    the_problem(check_dataset(tmp_path), path, "warning", "same value")


def test_overlapping_classes(data: Path) -> None:
    for seed in range(10):
        (data / "labels" / f"{seed}.png").unlink()
        planes = np.stack([blobs(seed), blobs(seed + 100)])
        tifffile.imwrite(data / "labels" / f"{seed}.tif", planes, metadata={"axes": "CYX"})
    check = check_dataset(data)
    assert check.problems == ()
    assert check.fingerprint is not None
    expected = [np.mean([blobs(seed + offset) > 0 for seed in range(10)]) for offset in (0, 100)]
    assert check.fingerprint.class_shares == pytest.approx(expected)
    assert "plane 2" in render_check(check)


class _Tags(HTMLParser):
    """Parser that checks that all elements close, and collects pictures and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_the_page_shows_problems_first_and_stands_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_page, "_THUMBNAILS", 3)
    save(data / "images" / "6.png", np.full((64, 80), 9, np.uint8))
    broken = data / "images" / "8.png"
    broken.write_bytes(broken.read_bytes()[:100])
    page = render_check(check_dataset(data))
    tags = parse(page)
    assert len(tags.pictures) == 2
    assert all(source.startswith("data:image/png;base64,") for source in tags.pictures)
    assert not re.search(r"https?://|<script|<link", page)
    assert "prefers-color-scheme:dark" in page
    captions = re.findall(r"<figcaption><b>(.*?)</b>", page)
    assert captions == ["8", "6", "0"]
    assert str(broken) in tags.text
    assert "7 more pairs not shown" in tags.text
    assert "1 error, 1 warning" in tags.text


def test_the_page_escapes_names(tmp_path: Path) -> None:
    root = tmp_path / "<b>&'\""
    for name in ("<i>1", "<i>2", "<i>3"):
        save(root / "images" / f"{name}.png", texture(len(name) + ord(name[-1])))
        save(root / "labels" / f"{name}.png", blobs(ord(name[-1])))
    settings = DataSettings(class_names=("<u>ground", "cell"))
    page = render_check(check_dataset(root, settings=settings))
    tags = parse(page)
    assert not re.search("<[iu]>", page)
    assert str(root) in tags.text
    assert {"<i>1", "<i>2", "<i>3"} <= set(re.findall(r"<i>\d", tags.text))
    assert "<u>ground" in tags.text


@pytest.mark.parametrize("folder", ["isbi2012", pytest.param("glas", marks=pytest.mark.slow)])
def test_real_data_can_be_trained_on(folder: str) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip("the shared data set is not here")
    check = check_dataset(SHARED / folder)
    assert not check.fatal, list(map(str, check.problems))
    assert check.fingerprint is not None
    assert check.fingerprint.images == {"isbi2012": 24, "glas": 85}[folder]
    assert not any("identical" in item.description for item in check.problems)


def test_one_mask_file_for_each_object_means_instances(tmp_path: Path) -> None:
    for index in range(4):
        rng = np.random.default_rng(index)
        folder = tmp_path / f"image{index}"
        write_image(folder / "images" / "a.png", rng.integers(0, 255, (1, 64, 64)).astype(np.uint8))
        for number in range(2):
            mask_yx = np.zeros((64, 64), np.uint8)
            mask_yx[5 + 30 * number : 20 + 30 * number, 10:30] = 255
            write_labels(folder / "masks" / f"{number}.png", mask_yx)
    check = check_dataset(tmp_path)
    assert check.mapping is not None
    assert check.mapping.kind == "instances"
    assert "task: instances (2 objects per image)" in check.notes


def write_numbered(tmp_path: Path, ignore: int) -> list[int]:
    """Write labels of numbered squares with an ignored corner each; return the number of squares of each image."""
    counts = [3, 4, 0, 6, 5, 9]
    for index, count in enumerate(counts):
        ids_yx = np.zeros((64, 80), np.uint16)
        for number in range(count):
            top, left = 20 * (number // 4), 20 * (number % 4)
            ids_yx[top : top + 15, left : left + 15] = 1 + number
        ids_yx[-4:, -4:] = ignore
        save(tmp_path / "images" / f"{index}.png", texture(index))
        save(tmp_path / "labels" / f"{index}.tif", ids_yx)
    return counts


def test_numbered_objects_decide_the_task(tmp_path: Path) -> None:
    counts = write_numbered(tmp_path, 500)
    check = check_dataset(tmp_path, settings=DataSettings(ignore_label=500))
    assert [item.objects for item in check.facts] == counts
    notes = [note for note in check.notes if note.startswith("task: ")]
    assert notes == ["task: instances (0 to 9 objects per image)"]
    assert notes[0] in render_check(check)
    for task in ("semantic", "instances"):
        given = check_dataset(tmp_path, settings=DataSettings(ignore_label=500), task=task)
        assert not any(note.startswith("task: ") for note in given.notes)


def test_class_labels_have_no_number_of_objects(data: Path) -> None:
    check = check_dataset(data)
    assert {item.objects for item in check.facts} == {None}
    assert not any(note.startswith("task: ") for note in check.notes)
