"""The package: what a release checks, the conda recipe, and the files that build containers."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "constraints.txt", "CITATION.cff", "CHANGELOG.md", "src/septa/__init__.py")
RECIPE = "packaging/conda/recipe.yaml"


@pytest.fixture(scope="module")
def release():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        import release

        yield release
    sys.modules.pop("release", None)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (*FILES, RECIPE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_this_repository_passes(release) -> None:
    assert release.check_versions(ROOT) == []
    assert release.check_constraints(ROOT) == []
    assert release.check_conda(ROOT) == []


def test_faults_are_found(release, copy: Path) -> None:
    change(copy / "CITATION.cff", "version: 0.1.0", "version: 0.2.0")
    change(copy / "constraints.txt", "\nzarr==", "\nzarrr==")
    change(copy / RECIPE, "- zarr >=3.1", "- zarr >=3.0")
    change(copy / RECIPE, "    - roifile >=2024.9.15\n", "    - tensorflow >=2\n")
    assert release.check_versions(copy) == ["CITATION.cff has the version 0.2.0, pyproject.toml has 0.1.0"]
    assert release.check_constraints(copy) == ["zarr is not pinned"]
    assert release.check_conda(copy) == [
        "roifile >=2024.9.15 is missing",
        "tensorflow is not a dependency",
        "zarr: >=3.0 should be >=3.1",
    ]


def test_an_undated_version_is_refused(release, copy: Path) -> None:
    (copy / "CHANGELOG.md").write_text("## [0.1.0] - unreleased\n")
    assert release.check_changelog(copy, "0.1.0") == ["CHANGELOG.md: write '## [0.1.0] - YYYY-MM-DD'"]
    (copy / "CHANGELOG.md").write_text("## [0.1.0] - 2026-12-01\n")
    assert release.check_changelog(copy, "0.1.0") == []


def test_links_of_the_readme_become_absolute(release) -> None:
    text = release.make_absolute((ROOT / "README.md").read_text(encoding="utf-8"), "https://h.org/o/septa/", "0.1.0")
    assert not re.search(r"\]\((?!https?:|#)", text)
    assert "](https://h.org/o/septa/raw/v0.1.0/docs/images/nuclei.png)" in text
    assert "](https://h.org/o/septa/blob/v0.1.0/docs/data.md)" in text


def test_files_that_a_source_distribution_lacks_are_found(release, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    with tarfile.open(tmp_path / "septa-0.1.0.tar.gz", "w:gz") as file:
        file.add(tmp_path / "README.md", "septa-0.1.0/README.md")
    assert release.find_missing(tmp_path / "septa-0.1.0.tar.gz", ["README.md", "LICENSE", "Dockerfile"]) == ["LICENSE"]


def test_every_folder_is_in_the_source_distribution() -> None:
    listed = set((ROOT / "MANIFEST.in").read_text(encoding="utf-8").split())
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"src", "build", "dist", "__pycache__"}
    hidden = {name for name in folders if name.startswith(".") and name not in (".ci", ".github")}
    assert {name for name in folders - hidden if not name.endswith((".egg-info", "-run"))} <= listed


def test_the_container_files_name_what_exists() -> None:
    definition = (ROOT / "packaging" / "septa.def").read_text(encoding="utf-8")
    assert set(re.findall(r"^%(\w+)", definition, re.MULTILINE)) == {
        *("files", "post", "environment", "runscript", "test", "labels", "help")
    }
    for line in re.findall(r"^    (\S+) /source/", definition, re.MULTILINE):
        assert (ROOT / line).exists()
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    extras = set(re.search(r'EXTRAS="([\w,]+)"', docker)[1].split(",")) | {"openvino", "cluster"}
    assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8") for extra in extras)
    assert {re.search(r"^From: (\S+)", definition, re.MULTILINE)[1]} == set(
        re.findall(r"^FROM (\S+)", docker, re.MULTILINE)
    )


def test_issue_forms_are_valid() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 4
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert set(form) == {"name", "description", "labels", "body"}
            assert all(part["type"] in {"textarea", "input", "checkboxes"} for part in form["body"])
