"""Find unit files and drop-ins of the administrator (`systemctl edit`), to name them in hints."""

import re
from pathlib import Path

ROOTS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))


def setting(unit: str, name: str) -> Path | None:
    """Return the file of `unit` that sets the directive or variable `name`, or None. Skips unreadable files."""
    pattern = re.compile(rf"^[^#;\n]*\b{re.escape(name)}=", re.MULTILINE)
    for root in ROOTS:
        for path in (root / unit, *sorted((root / f"{unit}.d").glob("*.conf"))):
            try:
                if pattern.search(path.read_text(errors="replace")):
                    return path
            except OSError:
                continue
    return None
