"""Fetch the parts of the page that others wrote, as daemons/queen_rbee/page/parts/parts.toml lists them.

Usage: `python -m tools.page_parts`. npm downloads the packages; nothing of them is run. The files replace those in the
folder, and their digests those in the list.
"""

import base64
import hashlib
import re
import subprocess
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "daemons/queen_rbee/page/parts"
LIST = FOLDER / "parts.toml"


def main() -> None:
    """Fetch every part. Exits with a message if a package is not the one that the list names."""
    text = LIST.read_text()
    with tempfile.TemporaryDirectory() as directory:
        for name, part in tomllib.loads(text).items():
            for before, after in fetch(name, part, Path(directory)).items():
                text = text.replace(before, after)
    LIST.write_text(text)


def fetch(name: str, part: dict[str, Any], directory: Path) -> dict[str, str]:
    """Write the files of one part; return their new digests by the old ones."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{part['version']}"]
    packed = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
    content = (directory / packed).read_bytes()
    if (found := f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}") != part["integrity"]:
        raise SystemExit(f"page_parts: {name} {part['version']} has the digest {found}, not that of {LIST.name}")
    digests = {}
    with tarfile.open(directory / packed) as archive:
        for file in part["files"]:
            member = archive.extractfile(f"package/{file['from']}")
            if member is None or not re.fullmatch(r"[\w.-]+", file["name"]):
                raise SystemExit(f"page_parts: {name} has no file {file['from']}")
            data = member.read()
            (FOLDER / file["name"]).write_bytes(data)
            digests[file["sha256"]] = hashlib.sha256(data).hexdigest()
    return digests


if __name__ == "__main__":
    main()
