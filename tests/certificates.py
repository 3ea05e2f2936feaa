"""Certificates for tests, made by openssl(1): an authority, and what it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from llama_orch.settings.tls import TlsFiles

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
DAYS = 90
"""Nobody is warned of what is good for so long."""
HERE = "IP:127.0.0.1,IP:::1,DNS:localhost"


def _openssl(*arguments: str | Path | int) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@dataclass(frozen=True)
class Authority:
    """A CA whose files are in `directory`."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        """What others hold its certificates against."""
        return self.directory / f"{self.name}.pem"

    def signed(self, name: str, names: str = HERE, password: str | None = None, days: int = DAYS) -> TlsFiles:
        """A certificate for `names` with its key, good for so many days, and this CA for all others."""
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        secret = ("-passout", f"pass:{password}") if password else ("-nodes",)
        by = ("-CA", self.certificate, "-CAkey", self.certificate.with_suffix(".key"))
        extensions = ("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE")
        made = (*KEY, *secret, *by, "-days", days, "-subj", f"/CN={name}", *extensions)
        _openssl("req", "-x509", *made, "-out", cert, "-keyout", key)
        return TlsFiles(cert, key, self.certificate)


def authority(directory: Path, name: str, days: int = DAYS) -> Authority:
    """A new CA, good for so many days."""
    made = Authority(directory, name)
    key = made.certificate.with_suffix(".key")
    named = ("-days", days, "-subj", f"/CN={name}", "-out", made.certificate, "-keyout", key)
    _openssl("req", "-x509", *KEY, "-nodes", *named)
    return made
