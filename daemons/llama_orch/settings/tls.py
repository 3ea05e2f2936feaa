"""The files that TLS is made of: which variables name them, and what they are for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llama_orch.settings.loading import Problem

CERT_FILE = "LLORCH_TLS_CERT_FILE"
KEY_FILE = "LLORCH_TLS_KEY_FILE"
CA_FILE = "LLORCH_TLS_CA_FILE"


@dataclass(frozen=True)
class TlsFiles:
    """A certificate chain with its key, and the CA of all others; None for what there is not."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    @classmethod
    def named(cls, environ: Mapping[str, str]) -> Self:
        """Those that `environ` names."""
        given = (environ.get(name) for name in (CERT_FILE, KEY_FILE, CA_FILE))
        return cls(*(Path(path) if path else None for path in given))

    def unpaired(self) -> Iterator[Problem]:
        """The certificate or the key that is missing."""
        for missing, path, other, there in (
            (CERT_FILE, self.cert, KEY_FILE, self.key),
            (KEY_FILE, self.key, CERT_FILE, self.cert),
        ):
            if there and path is None:
                yield Problem(missing, None, f"is not set, and {other} is", "Set both, or none.")
