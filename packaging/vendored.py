"""Prints the stanzas of debian/copyright for the Python packages that are shipped within the .deb.

Run as `vendored.py SITE`, SITE being the directory they are installed in. What it says comes from each package's
own metadata. A package without a licence text ends the build: it may not be shipped so.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

SHIPPED = "usr/lib/llama-orch/lib/python3/site-packages"
OURS = "llama-orch"


def licence(found: Distribution) -> str:
    """Its licence's name as debian/copyright writes it: one word, from the best field of its metadata."""
    fields = found.metadata
    classified = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier", []) if "License ::" in text]
    text = fields.get("License-Expression") or " or ".join(classified) or fields.get("License") or "unnamed"
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text.splitlines()[0]).strip("-")


def texts(site: Path, found: Distribution) -> list[str]:
    """The files of the package that hold its licence; of a lone module, it may be the module itself."""
    paths = [str(path) for path in found.files or ()]
    proper = sorted(path for path in paths if re.search(r"\.dist-info/(.*/)?(LICEN[CS]E|COPYING)[^/]*$", path))
    return proper or [path for path in paths if re.fullmatch(r"\w+\.py", path) and granting(site / path)]


def granting(module: Path) -> bool:
    """Whether a module begins with the text of a licence; those left out of the package do not exist."""
    return module.exists() and "Redistribution and use" in module.read_text()[:4000]


def tops(found: Distribution) -> list[str]:
    """What the package brings, as patterns of debian/copyright."""
    parts = {path.parts for path in found.files or () if ".." not in path.parts and path.parts[0] != "bin"}
    return sorted({part[0] if len(part) == 1 else f"{part[0]}/*" for part in parts})


def stanza(site: Path, found: Distribution) -> Iterator[str]:
    """The lines for one package."""
    held = texts(site, found)
    if not held:
        raise SystemExit(f"vendored.py: {found.name} {found.version} brings no licence text and may not be shipped")
    by = found.metadata.get("Author") or found.metadata.get("Author-email") or f"the authors of {found.name}"
    yield "\nFiles: " + "\n ".join(f"{SHIPPED}/{top}" for top in tops(found))
    yield f"Copyright: {by}"
    yield f"License: {licence(found)}"
    yield f" {found.name} {found.version}, as published. Its licence: /{SHIPPED}/{held[0]}"


def main(site: Path) -> None:
    """Print the stanzas of all packages in `site` but this project's own."""
    for found in sorted(distributions(path=[str(site)]), key=lambda each: each.name.lower()):
        if found.name != OURS:
            print("\n".join(stanza(site, found)))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
