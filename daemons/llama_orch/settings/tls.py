"""The files for TLS and the variables that name them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from llama_orch.settings.loading import Problem

CERT_FILE = "LLORCH_TLS_CERT_FILE"
KEY_FILE = "LLORCH_TLS_KEY_FILE"
CA_FILE = "LLORCH_TLS_CA_FILE"


@dataclass(frozen=True)
class TlsFiles:
    """A certificate chain, its key, and the CA that signs the peers' certificates; None if not set."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    @classmethod
    def named(cls, environ: Mapping[str, str]) -> Self:
        """Return the files that `environ` names."""
        paths = (environ.get(name) for name in (CERT_FILE, KEY_FILE, CA_FILE))
        return cls(*(Path(path) if path else None for path in paths))

    def unpaired(self) -> Iterator["Problem"]:
        """Yield a problem if only one of certificate and key is set."""
        from llama_orch.settings.loading import Problem  # imports all settings, which orchctl does without

        for missing, path, other, other_path in (
            (CERT_FILE, self.cert, KEY_FILE, self.key),
            (KEY_FILE, self.key, CERT_FILE, self.cert),
        ):
            if other_path and path is None:
                yield Problem(missing, None, f"is not set, but {other} is", "Set both or neither.")
