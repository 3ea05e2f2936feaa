"""A file to download: where it is, where it goes, and what is known about it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine_provisioner.failures import ProvisioningFailure, Retry

Role = Literal["model", "shard", "mmproj", "template", "engine"]
"""What the file is for. A model in several files has one `model`, which the engine opens, and `shard`s beside it."""

GGUF_ROLES: tuple[Role, ...] = ("model", "shard", "mmproj")

HeadersProvider = Callable[[bool], Awaitable[Mapping[str, str]]]
"""Return the headers of the next request that are only for the file's own host, such as Authorization. Called before
each request; True: the server refused the last ones with 401."""


@dataclass(frozen=True)
class Refusal:
    """An answer that is neither the file nor a redirect. `body` has at most its first 4 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Explain = Callable[[Refusal], ProvisioningFailure | None]
"""Return the failure that a refusal means, None to describe it by its status."""


async def no_headers(_renew: bool) -> Mapping[str, str]:
    """Return no headers."""
    return {}


def no_explanation(_refusal: Refusal) -> ProvisioningFailure | None:
    """Return None."""
    return None


@dataclass(frozen=True)
class RemoteFile:
    """A file to download to `target`, which appears complete or not at all.

    - `shown`: how messages name it, without secrets
    - `sha256`: 64 hex digits, verified before `target` appears; `authority`: whose they are
    - `path`: where the engine finds it, if not at `target`: a symbolic link to it
    - `keep`: a directory above `target` that stays when a failed download is removed
    """

    name: str
    url: str
    target: Path
    shown: str
    keep: Path
    role: Role = "model"
    headers: HeadersProvider = no_headers
    size: int | None = None
    sha256: str | None = None
    authority: str = "the pools file requires"
    path: Path | None = None
    explain: Explain = no_explanation

    @property
    def opened_at(self) -> Path:
        """The path by which the engine opens the file."""
        return self.path or self.target

    @property
    def identity(self) -> str:
        """A text that is the same for as long as partial downloads belong to the same file."""
        return f"sha256:{self.sha256}" if self.sha256 else self.url

    def refused(self, refusal: Refusal) -> ProvisioningFailure:
        """Return the failure for `refusal`."""
        hints = {
            401: "It requires credentials.",
            403: "It may require credentials.",
            404: "Correct the reference.",
            410: "Correct the reference.",
        }
        message = f"{self.shown}: the server answered {refusal.status}"
        default = ProvisioningFailure(message, hints.get(refusal.status, ""), Retry.AFTER_FIX)
        return self.explain(refusal) or default
