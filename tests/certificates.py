"""Certificates for tests, made with openssl(1): a CA and certificates that it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from llama_orch.settings.tls import TlsFiles

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
DAYS = 90
"""Days of validity without an expiry warning."""
HERE = "IP:127.0.0.1,IP:::1,DNS:localhost"


def _openssl(*arguments: str | Path | int) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@dataclass(frozen=True)
class Authority:
    """A CA with its files in `directory`."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        """The CA certificate."""
        return self.directory / f"{self.name}.pem"

    def issue(self, name: str, names: str = HERE, password: str | None = None, days: int = DAYS) -> TlsFiles:
        """Issue a certificate for `names` that is valid for `days` days; return its files and the CA."""
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        secret = ("-passout", f"pass:{password}") if password else ("-nodes",)
        issuer = ("-CA", self.certificate, "-CAkey", self.certificate.with_suffix(".key"))
        extensions = ("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE")
        options = (*KEY, *secret, *issuer, "-days", days, "-subj", f"/CN={name}", *extensions)
        _openssl("req", "-x509", *options, "-out", cert, "-keyout", key)
        return TlsFiles(cert, key, self.certificate)


def create_ca(directory: Path, name: str, days: int = DAYS) -> Authority:
    """Create a CA that is valid for `days` days."""
    ca = Authority(directory, name)
    key = ca.certificate.with_suffix(".key")
    options = ("-days", days, "-subj", f"/CN={name}", "-out", ca.certificate, "-keyout", key)
    _openssl("req", "-x509", *KEY, "-nodes", *options)
    return ca
