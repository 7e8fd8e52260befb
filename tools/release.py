"""Make and check a release: `python tools/release.py --home URL`, or `make release-check`.

The script builds the source distribution and the wheel from the committed files, checks them, and prints a check-list.
It uploads nothing. `--home` is the address of the repository: links of the README are relative, and become absolute on
the package's page. Without it everything else is checked, and the list says what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

NOT_DISTRIBUTED = ("Dockerfile", ".dockerignore", "MANIFEST.in")
"""Files that may be absent from the source distribution, which is not a place to build containers."""

CHOSEN_TESTS = (
    "test_errors.py",
    "test_public.py",
    "images/test_read.py",
    "nets/test_unet.py",
    "metrics",
    "cli/test_messages.py",
)
"""Tests that the installed wheel has to pass outside the checkout."""

BY_HAND = (
    "CI passed on this commit (`.ci/run`)",
    "`make site` has no warnings and no broken links; its pages were looked at, light, dark and narrow",
    "`make notebooks` ran; the figures were looked at",
    "tag the commit: git tag -s vVERSION",
    "upload to a test index first, install from it, run `septa demo`",
    "upload: twine upload dist/*",
    "conda-forge: set version and SHA-256 of the source distribution in the feedstock's recipe",
    "CHANGELOG: open the next version",
)


def main() -> int:
    """Check everything, print the list, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", help="address of the repository, such as https://HOST/OWNER/septa")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the distributions")
    parser.add_argument(
        "--test", action="store_true", help="also install the wheel and run some tests outside the checkout"
    )
    parser.add_argument(
        "--python", action="append", default=[], help="interpreter for --test; may be given several times"
    )
    parser.add_argument(
        "--dirty", action="store_true", help="accept changes that are not committed, and an open changelog"
    )
    options = parser.parse_args()

    version = read_version(ROOT)
    checks: list[tuple[str, Callable[[], list[str]]]] = [
        ("versions agree", lambda: check_versions(ROOT)),
        ("every dependency is pinned in constraints.txt", lambda: check_constraints(ROOT)),
        ("the conda recipe has the dependencies of pyproject.toml", lambda: check_conda(ROOT)),
    ]
    if not options.dirty:
        checks += [
            ("the changelog is dated", lambda: check_changelog(ROOT, version)),
            ("everything is committed", check_committed),
        ]
    checks.append(
        ("the distributions are complete, and twine accepts them", lambda: build(options.output, options.home))
    )
    if options.home is None:
        checks.append(("links of the package's page", lambda: ["give --home URL, else its links lead nowhere"]))
    if options.test:
        for python in options.python or [sys.executable]:
            checks.append(
                (
                    f"the wheel works outside the checkout ({python})",
                    lambda each=python: try_wheel(options.output, each),
                )
            )
    failed = 0
    print(f"septa {version}")
    for title, check in checks:
        faults = check()
        failed += bool(faults)
        print(f"[{' ' if faults else 'x'}] {title}", *(f"      {fault}" for fault in faults), sep="\n", flush=True)
    print("by hand:", *(f"[ ] {step.replace('VERSION', version)}" for step in BY_HAND), sep="\n")
    return 1 if failed else 0


def read_version(root: Path) -> str:
    """Read the version of pyproject.toml."""
    version: str = read_project(root)["version"]
    return version


def read_project(root: Path) -> dict:  # type: ignore[type-arg]
    """Read the table ``project`` of pyproject.toml."""
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def check_versions(root: Path) -> list[str]:
    """Compare the versions that several files state."""
    version = read_version(root)
    places = {
        "src/septa/__init__.py": r'__version__ = "([^"]+)"',
        "CITATION.cff": r"(?m)^version: (\S+)",
        "packaging/conda/recipe.yaml": r'version: "([^"]+)"',
        "CHANGELOG.md": r"(?m)^## \[([^\]]+)\]",
    }
    faults = []
    for name, pattern in places.items():
        found = re.search(pattern, (root / name).read_text(encoding="utf-8"))
        if found is None or found[1] != version:
            faults.append(f"{name} has the version {found[1] if found else '(none)'}, pyproject.toml has {version}")
    return faults


def check_changelog(root: Path, version: str) -> list[str]:
    """Check that the version has a date in the changelog."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.search(rf"(?m)^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", text)
    return [] if dated else [f"CHANGELOG.md: write '## [{version}] - YYYY-MM-DD'"]


def list_requirements(root: Path, *extras: str) -> dict[str, str]:
    """List the requirements of pyproject.toml: version limits by normalised names; without extras, the core's."""
    project = read_project(root)
    chosen = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    found = {}
    for requirement in chosen:
        match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(.*)", requirement)
        assert match is not None
        if match[1] != "septa":
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def check_constraints(root: Path) -> list[str]:
    """Check that constraints.txt pins the dependencies of the tests and of the site."""
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"(?m)^([\w.-]+)==", text)}
    return [f"{name} is not pinned" for name in sorted(set(list_requirements(root, "dev", "docs")) - pinned)]


CONDA_NAMES = {"torch": "pytorch", "opencv-python-headless": "py-opencv"}


def check_conda(root: Path) -> list[str]:
    """Compare the dependencies of the conda recipe with those of pyproject.toml."""
    text = (root / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    section = re.search(r"(?ms)^  run:\n(.*?)^\S", text)
    assert section is not None
    found = dict(re.findall(r"(?m)^    - ([\w-]+) (.*)$", section[1]))
    found.pop("python")
    wanted = {CONDA_NAMES.get(name, name): limits for name, limits in list_requirements(root).items()}
    faults = [f"{name} {wanted[name]} is missing" for name in sorted(set(wanted) - set(found))]
    faults += [f"{name} is not a dependency" for name in sorted(set(found) - set(wanted))]
    faults += [
        f"{name}: {found[name]} should be {wanted[name]}"
        for name in found
        if wanted.get(name, found[name]) != found[name]
    ]
    return faults


def check_committed() -> list[str]:
    """List files that are changed or new."""
    status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    return status.stdout.splitlines()


def make_absolute(text: str, home: str, version: str) -> str:
    """Return a README whose relative links lead to the files of a version at ``home``.

    Examples
    --------
    >>> make_absolute("[data](docs/data.md#labels) ![a](docs/a.png) [x](#y)", "https://h.org/septa", "1.0")
    '[data](https://h.org/septa/blob/v1.0/docs/data.md#labels) ![a](https://h.org/septa/raw/v1.0/docs/a.png) [x](#y)'
    """

    def replace(match: re.Match[str]) -> str:
        kind = "raw" if match[1].startswith("!") else "blob"
        return f"{match[1]}({home.rstrip('/')}/{kind}/v{version}/{match[2]})"

    return re.sub(r"(!?\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)", replace, text)


def build(output: Path, home: str | None) -> list[str]:
    """Build both distributions from the files of the repository, and check them."""
    output.mkdir(parents=True, exist_ok=True)
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    with tempfile.TemporaryDirectory(prefix="septa-release-") as scratch:
        tree = Path(scratch, "septa")
        for name in tracked:
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                target.write_bytes((ROOT / name).read_bytes())
        if home is not None:
            _set_home(tree, home)
        for old in output.glob("septa-*"):
            old.unlink()
        command = [sys.executable, "-m", "build", "--outdir", str(output.resolve()), str(tree)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return ["python -m build failed:", *done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-5:]]
    sdist, wheel = next(output.glob("*.tar.gz")), next(output.glob("*.whl"))
    faults = [f"{sdist.name} lacks {name}" for name in find_missing(sdist, tracked)]
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    wanted = [name.removeprefix("src/") for name in tracked if name.startswith("src/septa/")]
    faults += [f"{wheel.name} lacks {name}" for name in wanted if name not in names]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    faults += [line for line in done.stdout.splitlines() if line.strip()] if done.returncode else []
    for path in (sdist, wheel):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"    {path.name}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")
    return faults


def _set_home(tree: Path, home: str) -> None:
    """Make the links of a copied tree absolute, and add the addresses to its pyproject.toml."""
    readme, project = tree / "README.md", tree / "pyproject.toml"
    version = read_version(tree)
    readme.write_text(make_absolute(readme.read_text(encoding="utf-8"), home, version), encoding="utf-8")
    home = home.rstrip("/")
    lines = f'Source = "{home}"\nIssues = "{home}/issues"\nChangelog = "{home}/blob/v{version}/CHANGELOG.md"\n'
    text = project.read_text(encoding="utf-8")
    project.write_text(text.replace("[project.urls]\n", f"[project.urls]\n{lines}"), encoding="utf-8")


def find_missing(sdist: Path, tracked: list[str]) -> list[str]:
    """List the files of the repository that a source distribution lacks."""
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    return sorted(
        name for name in tracked if name not in names and name not in NOT_DISTRIBUTED and (ROOT / name).is_file()
    )


def try_wheel(output: Path, python: str) -> list[str]:
    """Install the wheel into a new environment, and run some tests of the source distribution outside the checkout."""
    wheel, sdist = next(output.glob("*.whl")).resolve(), next(output.glob("*.tar.gz")).resolve()
    with tempfile.TemporaryDirectory(prefix="septa-wheel-") as scratch:
        home = Path(scratch, "venv")
        if python == sys.executable:
            venv.create(home, with_pip=True)
        else:
            subprocess.run([python, "-m", "venv", str(home)], check=True)
        with tarfile.open(sdist) as file:
            file.extractall(scratch, filter="data")
        source = next(Path(scratch).glob("septa-*"))
        for path in (source / "src", source / "build"):
            if path.is_dir():
                path.rename(path.with_name(f"unused-{path.name}"))
        pip = [str(home / "bin" / "pip"), "install", "-q", "-c", str(source / "constraints.txt")]
        tools = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]
        done = subprocess.run([*pip, str(wheel), *tools], capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.splitlines()[-5:]
        tests = [str(source / "tests" / name) for name in CHOSEN_TESTS if (source / "tests" / name).exists()]
        command = [str(home / "bin" / "python"), "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        print("    " + (done.stdout.splitlines() or ["pytest printed nothing"])[-1])
        return done.stdout.splitlines()[-15:] if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
