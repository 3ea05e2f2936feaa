"""Print the unit tests of what changed since main, for `make check`: `python -m tools.changed_tests`."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OF_PACKAGE = ("test_manual.py", "test_manual_html.py", "test_security_page.py", "test_unit_pages.py", "test_units.py")
"""The tests of what the package installs besides the programs."""


def changed_files() -> list[Path]:
    """The files that differ from the merge base with main, uncommitted and untracked ones included."""
    base = _git("merge-base", "HEAD", "main") or ["HEAD"]
    names = _git("diff", "--name-only", base[0]) + _git("ls-files", "--others", "--exclude-standard")
    return [Path(name) for name in names]


def unit_tests_of(changed: Iterable[Path], root: Path = ROOT) -> list[Path]:
    """Return the unit test files and folders to run for `changed`, paths relative to `root`.

    A module of a daemon is tested by the folder that mirrors its own, or the nearest one above that exists.
    """
    found = set()
    for path in changed:
        if path.parts[0] in ("man", "packaging", "units"):
            found |= {Path("tests/unit", name) for name in OF_PACKAGE}
        if path.parts[:2] == ("tests", "unit") and path.suffix == ".py":
            target = path if path.name.startswith("test_") else path.parent
        elif path.parts[0] == "daemons":
            target = Path("tests/unit", *path.parent.parts[1:])
        else:
            target = Path("tests/unit/test_guides.py")
        while not (root / target).exists():
            target = target.parent
        found.add(target)
    return sorted(path for path in found if not found.intersection(path.parents))


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split()


if __name__ == "__main__":
    print(*unit_tests_of(changed_files()))
