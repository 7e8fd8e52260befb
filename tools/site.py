"""Build septa's site: `make site`, or `python tools/site.py --output build/site`.

The pages of `docs/`, the benchmarks, the changelog and the executed notebooks are copied to one folder, with links that
lead to the copies. The reference is written from the commands and the docstrings. Sphinx then builds the site, and any
warning fails. Finally each link of the site is checked.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from _links import check_site
from _reference import write_api, write_commands
from _stage import NOTEBOOKS, ROOT, list_pages, stage_page
from notebooks import run_notebooks


def main() -> int:
    """Build the site; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site", help="folder of the site")
    parser.add_argument("--no-notebooks", action="store_true", help="show the notebooks without running them")
    parser.add_argument("--fresh", action="store_true", help="read every page again, not only those that changed")
    options = parser.parse_args()
    begin = time.monotonic()
    staged = ROOT / "build" / "site-pages"
    if options.fresh:
        for folder in (staged, options.output, ROOT / "build" / "site-cache"):
            shutil.rmtree(folder, ignore_errors=True)
    kept = {stage_page(page, staged) for page in list_pages()}
    shutil.copytree(ROOT / "docs" / "images", staged / "images", dirs_exist_ok=True)
    shutil.copytree(ROOT / "docs" / "site" / "_static", staged / "_static", dirs_exist_ok=True)
    shutil.copy2(ROOT / "docs" / "site" / "conf.py", staged)
    notebooks = run_notebooks(NOTEBOOKS, ROOT / "build" / "notebooks", execute=not options.no_notebooks)
    kept |= {Path(shutil.copy2(path, staged / "tutorials")) for path in notebooks}
    kept |= {staged / "reference" / "cli.md", *write_api(staged / "reference" / "api")}
    write_commands(staged / "reference" / "cli.md")
    for path in [*staged.rglob("*.md"), *staged.rglob("*.ipynb")]:
        if path not in kept:
            path.unlink()
    print(f"{len(kept)} pages, {time.monotonic() - begin:.0f} s for their sources", flush=True)

    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d"]
    command += [str(ROOT / "build" / "site-cache"), str(staged), str(options.output)]
    begin = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    print(f"sphinx: {time.monotonic() - begin:.0f} s, exit code {code}")
    if code:
        return 1
    result = check_site(options.output)
    print("\n".join(result.faults))
    print(
        f"{result.pages} pages, {result.internal} links inside ({len(result.faults)} faults), "
        f"{result.external} links to elsewhere; nothing is loaded from elsewhere: {not result.loaded}"
    )
    return 1 if result.faults or result.loaded else 0


if __name__ == "__main__":
    sys.exit(main())
