"""Print what a package says about the Python packages that are shipped in it.

Usage: `vendored.py copyright SITE` for the stanzas of debian/copyright, `vendored.py bundled SITE` for the License and
Provides of an .rpm. SITE is the directory that contains the installed packages. The data comes from the metadata of the
packages. A package without a licence text must not be shipped, and fails the build.
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


SPDX = {
    "BSD-License": "BSD-3-Clause",
    "3-Clause-BSD-License": "BSD-3-Clause",
    "Apache-Software-License": "Apache-2.0",
    "MIT-License": "MIT",
    "MIT-License-or-Apache-Software-License": "MIT OR Apache-2.0",
}
"""Names made of classifiers, as SPDX identifiers."""


def copyright_stanzas(site: Path, packages: list[Distribution]) -> Iterator[str]:
    """Return the stanzas of debian/copyright."""
    for package in packages:
        yield from stanza(site, package)


def bundled(site: Path, packages: list[Distribution]) -> Iterator[str]:
    """Return the tags of the .rpm: the licence of the whole, and what is bundled."""
    names = {name for package in packages for name in spdx(package)}
    yield f"License: {' AND '.join(['Apache-2.0', *sorted(names - {'Apache-2.0'})])}"
    for package in packages:
        yield f"Provides: bundled(python3dist({re.sub(r'[-_.]+', '-', package.name.lower())})) = {package.version}"


def spdx(package: Distribution) -> list[str]:
    """Return the SPDX expressions, that must all hold, of the package's licence."""
    expression = package.metadata.get("License-Expression") or SPDX.get(licence(package), licence(package))
    return [f"({part})" if " OR " in part else part for part in expression.split(" AND ")]


FORMATS = {"copyright": copyright_stanzas, "bundled": bundled}


def main(format_: str, site: Path) -> None:
    """Print all packages in `site` except this project's."""
    packages = sorted(distributions(path=[str(site)]), key=lambda each: each.name.lower())
    for line in FORMATS[format_](site, [package for package in packages if package.name != OURS]):
        print(line)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
