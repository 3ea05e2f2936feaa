"""Fetching a file over HTTP: resumed where the server can, bounded in stillness, checked before it is believed.

Owns `.NAME.part` and `.NAME.part.json` beside the target: what has come so far, and what identifies it. The target
itself appears whole or not at all.
"""

import errno
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from engine_provisioner.acquire.partial_file import OutOfStep, PartialFile
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.spec.model_name import model_name
from engine_provisioner.spec.policies import is_cleartext
from llama_orch.addresses import is_loopback

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 15.0
BATCH = 4 << 20
SPARE_BYTES = 64 << 20
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)

OnBytes = Callable[[int, int | None], Awaitable[None]]
"""Called with the bytes that are there and, where the server tells it, the bytes that there will be."""


@dataclass(frozen=True)
class Download:
    """What to fetch; `checksum` is sha256:… or None, `idle_s` how long the server may be silent."""

    url: str
    target: Path
    checksum: str | None
    idle_s: float

    @property
    def shown(self) -> str:
        """The URL without what must not be shown."""
        return model_name(self.url)


async def fetch(download: Download, on_bytes: OnBytes) -> None:
    """Fetch into the target. Raises ProvisioningFailure; what has come is kept for the next try."""
    part = PartialFile(download.target)
    try:
        with _in_words(download):
            await trio.to_thread.run_sync(part.open, download.url)
            await _request(download, part, on_bytes)
            await trio.to_thread.run_sync(_finish, download, part)
    except OutOfStep as error:
        await trio.to_thread.run_sync(part.discard)
        what = f"{download.shown}: the server sent another part than was asked for"
        raise ProvisioningFailure(what, "It is fetched anew.") from error
    finally:
        part.close()


@contextmanager
def _in_words(download: Download) -> Iterator[None]:
    """Make a ProvisioningFailure of what network and disk do."""
    import httpx2

    try:
        yield
    except httpx2.TimeoutException as error:
        what = f"{download.shown}: the server was silent for {download.idle_s:g} s"
        raise ProvisioningFailure(what, "It is resumed at the next try; timeouts.idle_ms allows more.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProvisioningFailure(f"{download.shown} cannot be fetched: {_words(error)}") from error
    except OSError as error:
        raise _disk(download, error) from error


async def _request(download: Download, part: PartialFile, on_bytes: OnBytes) -> None:
    import httpx2

    timeout = httpx2.Timeout(download.idle_s, connect=CONNECT_S)
    proxies = not is_loopback(urlsplit(download.url).hostname or "")
    try:
        prepared = httpx2.AsyncClient(follow_redirects=True, timeout=timeout, trust_env=proxies)
    except (ValueError, ImportError) as error:  # of a proxy's URL; its password is not in the words
        what = f"{download.shown} cannot be fetched: a proxy of the environment cannot be used: {_words(error)}"
        raise ProvisioningFailure(what, "Set HTTPS_PROXY and HTTP_PROXY to http://HOST:PORT.", Retry.MENDING) from error
    async with (
        prepared as client,
        client.stream("GET", download.url, headers=part.resume_headers()) as response,
    ):
        await _receive(download, response, part, on_bytes)


async def _receive(download: Download, response: "httpx2.Response", part: PartialFile, on_bytes: OnBytes) -> None:
    _check_hops(download, response)
    if response.status_code == 416:
        await trio.to_thread.run_sync(part.discard)
        raise ProvisioningFailure(f"{download.shown}: the server has less than was fetched; fetching it anew")
    if response.status_code not in (200, 206):
        raise _status(download, response.status_code)
    await trio.to_thread.run_sync(part.begin, response.status_code == 206, dict(response.headers))
    length = response.headers.get("content-length", "")
    total = part.size + int(length) if length.isdigit() else None
    if total is not None:
        await trio.to_thread.run_sync(_check_room, download, total - part.size)
    batch = bytearray()
    await on_bytes(part.size, total)
    try:
        async for chunk in response.aiter_raw():
            batch += chunk
            await on_bytes(part.size + len(batch), total)
            if len(batch) >= BATCH:
                await trio.to_thread.run_sync(part.append, bytes(batch))
                batch.clear()
    finally:  # what has come is kept, also when the connection broke or the daemon stops
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(part.append, bytes(batch))


def _check_hops(download: Download, response: "httpx2.Response") -> None:
    """A redirect must not lead where the pools file itself may not point: to plain http without a checksum."""
    hops = [str(hop.url) for hop in (*response.history, response)]
    if download.checksum is None and any(map(is_cleartext, hops)):
        what = f"{download.shown} leads to plain http, which nothing protects on its way"
        raise ProvisioningFailure(what, "Give a checksum, or another address.", Retry.MENDING)


def _status(download: Download, status: int) -> ProvisioningFailure:
    retry = Retry.BACKOFF if status in TRANSIENT else Retry.MENDING
    hints = {401: "It wants credentials.", 403: "It may want credentials.", 404: "Mend the address."}
    return ProvisioningFailure(f"{download.shown}: the server answered {status}", hints.get(status, ""), retry)


def _check_room(download: Download, wanted: int) -> None:
    free = shutil.disk_usage(download.target.parent).free
    if wanted + SPARE_BYTES > free:
        what = f"{download.shown} needs {_size(wanted)} in {download.target.parent}, and {_size(free)} are free"
        raise ProvisioningFailure(what, "Make room, or set another cache_dir.", Retry.MENDING)


def _finish(download: Download, part: PartialFile) -> None:
    found = part.digest()
    if download.checksum is not None and found != download.checksum:
        part.discard()
        what = f"{download.shown} has the checksum {found}, and the pools file wants {download.checksum}"
        hint = "The file there is damaged or another one, or the checksum belongs to another file."
        raise ProvisioningFailure(what, hint, Retry.COSTLY)
    part.publish()


def _disk(download: Download, error: OSError) -> ProvisioningFailure:
    what = f"{download.shown} cannot be stored in {download.target.parent}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProvisioningFailure(what, "Make room, or set another cache_dir.", Retry.MENDING)
    return ProvisioningFailure(what, "See that the directory is there and the daemon's.", Retry.MENDING)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def how_far(there: int, total: int | None) -> str:
    """As in `34 % of 4.1 GiB`."""
    return f"{100 * there // total} % of {_size(total)}" if total else _size(there)
