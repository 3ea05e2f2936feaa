"""Print the stanzas of debian/copyright for the Python packages in the .deb.

Usage: `vendored.py SITE`, where SITE is the directory that contains the installed packages. The data comes from the
metadata of the packages. A package without a licence text must not be shipped, and fails the build.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

SHIPPED = "usr/lib/llama-orch/lib/python3/site-packages"
OURS = "llama-orch"


def licence(package: Distribution) -> str:
    """Return the name of the licence as one word, as debian/copyright requires, from the best field of the metadata."""
    fields = package.metadata
    classified = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier", []) if "License ::" in text]
    text = fields.get("License-Expression") or " or ".join(classified) or fields.get("License") or "unnamed"
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text.splitlines()[0]).strip("-")


def licence_files(site: Path, package: Distribution) -> list[str]:
    """Return the licence files of the package, or its single module if that contains the licence."""
    paths = [str(path) for path in package.files or ()]
    proper = sorted(path for path in paths if re.search(r"\.dist-info/(.*/)?(LICEN[CS]E|COPYING)[^/]*$", path))
    return proper or [path for path in paths if re.fullmatch(r"\w+\.py", path) and contains_licence(site / path)]


def contains_licence(module: Path) -> bool:
    """Whether the module begins with a licence text. Modules that strip_tree removed do not exist."""
    return module.exists() and "Redistribution and use" in module.read_text()[:4000]


def file_patterns(package: Distribution) -> list[str]:
    """Return patterns for the files of the package, in the syntax of debian/copyright."""
    parts = {path.parts for path in package.files or () if ".." not in path.parts and path.parts[0] != "bin"}
    return sorted({part[0] if len(part) == 1 else f"{part[0]}/*" for part in parts})


def stanza(site: Path, package: Distribution) -> Iterator[str]:
    licences = licence_files(site, package)
    if not licences:
        raise SystemExit(f"vendored.py: {package.name} {package.version} has no licence text and must not be shipped")
    by = package.metadata.get("Author") or package.metadata.get("Author-email") or f"the authors of {package.name}"
    yield "\nFiles: " + "\n ".join(f"{SHIPPED}/{top}" for top in file_patterns(package))
    yield f"Copyright: {by}"
    yield f"License: {licence(package)}"
    yield f" {package.name} {package.version}, as published. Its licence: /{SHIPPED}/{licences[0]}"


def main(site: Path) -> None:
    """Print the stanzas of all packages in `site` except this project's."""
    for package in sorted(distributions(path=[str(site)]), key=lambda each: each.name.lower()):
        if package.name != OURS:
            print("\n".join(stanza(site, package)))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
