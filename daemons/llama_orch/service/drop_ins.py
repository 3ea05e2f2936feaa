"""Unit files and drop-ins that an administrator wrote, as `systemctl edit` makes them; named in advice."""

import re
from pathlib import Path

ROOTS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))


def setting(unit: str, name: str) -> Path | None:
    """The file of `unit` that sets the directive or variable `name`; None where none can be read that does."""
    pattern = re.compile(rf"^[^#;\n]*\b{re.escape(name)}=", re.MULTILINE)
    for root in ROOTS:
        for path in (root / unit, *sorted((root / f"{unit}.d").glob("*.conf"))):
            try:
                if pattern.search(path.read_text(errors="replace")):
                    return path
            except OSError:
                continue
    return None
