"""Sources of a token, in order of precedence: a systemd credential, a file, the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TokenSources:
    """The variable, the variable that names a file (empty: there is none), and the systemd credential of one token."""

    variable: str
    file: str
    credential: str

    def read(self, environ: Mapping[str, str]) -> str | None:
        """Return the token from the first of its sources, or None.

        Raises OSError if the file is unreadable; an empty file gives "". An empty credential counts as unset, because
        the units pass an empty one on machines without a token. Invalid UTF-8 is replaced, so that the token is then
        refused as unusable.
        """
        if credential := self._read_credential(environ):
            return credential
        if self.file and (file := environ.get(self.file)):
            return Path(file).read_text(errors="replace").strip()
        return environ.get(self.variable) or None

    def source(self, environ: Mapping[str, str]) -> str:
        """Return the source that `read` uses: `credential`, `file`, or `environment`."""
        if self._read_credential(environ):
            return "credential"
        return "file" if self.file and environ.get(self.file) else "environment"

    def _read_credential(self, environ: Mapping[str, str]) -> str:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        path = Path(directory or "", self.credential)
        return path.read_text(errors="replace").strip() if directory and path.is_file() else ""


TOKEN = TokenSources("LLORCH_API_TOKEN", "LLORCH_API_TOKEN_FILE", "api-token")
SECOND_TOKEN = TokenSources("LLORCH_API_TOKEN_SECOND", "LLORCH_API_TOKEN_SECOND_FILE", "api-token-second")
