"""Where a token comes from: a systemd credential, a file, or the environment; the first of them counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TokenSources:
    """The names under which one token is looked for."""

    variable: str
    file: str
    credential: str

    def read(self, environ: Mapping[str, str]) -> str | None:
        """The token's text from the first of its three sources, or None.

        Raises OSError where the file that `file` names cannot be read; an empty file gives "". An empty credential
        counts as none: the units carry an empty one for machines without a token. Bytes that are no text are replaced,
        which makes a token that is refused as any other unusable one.
        """
        if credential := self._of_systemd(environ):
            return credential
        if file := environ.get(self.file):
            return Path(file).read_text(errors="replace").strip()
        return environ.get(self.variable) or None

    def source(self, environ: Mapping[str, str]) -> str:
        """Where `read` has the token from: `credential`, `file`, or `environment`."""
        if self._of_systemd(environ):
            return "credential"
        return "file" if environ.get(self.file) else "environment"

    def _of_systemd(self, environ: Mapping[str, str]) -> str:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        path = Path(directory or "", self.credential)
        return path.read_text(errors="replace").strip() if directory and path.is_file() else ""


TOKEN = TokenSources("LLORCH_API_TOKEN", "LLORCH_API_TOKEN_FILE", "api-token")
SECOND_TOKEN = TokenSources("LLORCH_API_TOKEN_SECOND", "LLORCH_API_TOKEN_SECOND_FILE", "api-token-second")
