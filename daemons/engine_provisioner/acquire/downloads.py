"""Download a file over HTTP: resumable, with an idle timeout, and verified before it appears.

Owns `.NAME.part` and `.NAME.part.json` beside the target: the bytes so far, and the version of the file they belong
to. The target itself appears complete or not at all.
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

from engine_provisioner.acquire.partial_file import PartialFile, WrongRange
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
"""Called with the number of bytes so far, and the total if the server sends it."""


@dataclass(frozen=True)
class Download:
    """A file to download. `checksum` is sha256:… or None; `idle_s` limits how long the server may send nothing."""

    url: str
    target: Path
    checksum: str | None
    idle_s: float

    @property
    def shown_url(self) -> str:
        """The URL without credentials and query."""
        return model_name(self.url)


async def fetch(download: Download, on_bytes: OnBytes) -> None:
    """Download to the target. Raises ProvisioningFailure; the bytes so far are kept for the next attempt."""
    part = PartialFile(download.target)
    try:
        with _as_failures(download):
            await trio.to_thread.run_sync(part.open, download.url)
            await _request(download, part, on_bytes)
            await trio.to_thread.run_sync(_finish, download, part)
    except WrongRange as error:
        await trio.to_thread.run_sync(part.discard)
        message = f"{download.shown_url}: the server sent a different range than requested"
        raise ProvisioningFailure(message, "The download starts over on the next attempt.") from error
    finally:
        part.close()


@contextmanager
def _as_failures(download: Download) -> Iterator[None]:
    """Turn errors of network and disk into ProvisioningFailure."""
    import httpx2

    try:
        yield
    except httpx2.TimeoutException as error:
        message = f"{download.shown_url}: the server sent nothing for {download.idle_s:g} s"
        hint = "The download resumes on the next attempt. Raise timeouts.idle_ms if the server is slow."
        raise ProvisioningFailure(message, hint) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProvisioningFailure(f"cannot download {download.shown_url}: {_text(error)}") from error
    except OSError as error:
        raise _disk_failure(download, error) from error


async def _request(download: Download, part: PartialFile, on_bytes: OnBytes) -> None:
    import httpx2

    timeout = httpx2.Timeout(download.idle_s, connect=CONNECT_S)
    proxies = not is_loopback(urlsplit(download.url).hostname or "")
    try:
        unopened = httpx2.AsyncClient(follow_redirects=True, timeout=timeout, trust_env=proxies)
    except (ValueError, ImportError) as error:  # from a bad proxy URL; the text has no password
        message = f"cannot download {download.shown_url}: invalid proxy in the environment: {_text(error)}"
        raise ProvisioningFailure(
            message, "Set HTTPS_PROXY and HTTP_PROXY to http://HOST:PORT.", Retry.AFTER_FIX
        ) from error
    async with (
        unopened as client,
        client.stream("GET", download.url, headers=part.resume_headers()) as response,
    ):
        await _receive(download, response, part, on_bytes)


async def _receive(download: Download, response: "httpx2.Response", part: PartialFile, on_bytes: OnBytes) -> None:
    _check_redirects(download, response)
    if response.status_code == 416:
        await trio.to_thread.run_sync(part.discard)
        raise ProvisioningFailure(
            f"{download.shown_url}: the server has fewer bytes than were downloaded; the download starts over"
        )
    if response.status_code not in (200, 206):
        raise _status_failure(download, response.status_code)
    await trio.to_thread.run_sync(part.begin, response.status_code == 206, dict(response.headers))
    length = response.headers.get("content-length", "")
    total = part.size + int(length) if length.isdigit() else None
    if total is not None:
        await trio.to_thread.run_sync(_check_free_space, download, total - part.size)
    batch = bytearray()
    await on_bytes(part.size, total)
    try:
        async for chunk in response.aiter_raw():
            batch += chunk
            await on_bytes(part.size + len(batch), total)
            if len(batch) >= BATCH:
                await trio.to_thread.run_sync(part.append, bytes(batch))
                batch.clear()
    finally:  # keep the bytes also when the connection breaks or the daemon stops
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(part.append, bytes(batch))


def _check_redirects(download: Download, response: "httpx2.Response") -> None:
    """Reject redirects to plain http without a checksum, which the pools file may not use either."""
    hops = [str(hop.url) for hop in (*response.history, response)]
    if download.checksum is None and any(map(is_cleartext, hops)):
        message = f"{download.shown_url} redirects to plain http, which does not protect the file"
        raise ProvisioningFailure(message, "Set a checksum or another URL.", Retry.AFTER_FIX)


def _status_failure(download: Download, status: int) -> ProvisioningFailure:
    retry = Retry.BACKOFF if status in TRANSIENT else Retry.AFTER_FIX
    hints = {401: "It requires credentials.", 403: "It may require credentials.", 404: "Correct the URL."}
    return ProvisioningFailure(f"{download.shown_url}: the server answered {status}", hints.get(status, ""), retry)


def _check_free_space(download: Download, needed: int) -> None:
    free = shutil.disk_usage(download.target.parent).free
    if needed + SPARE_BYTES > free:
        message = f"{download.shown_url} needs {_size(needed)} in {download.target.parent}, but {_size(free)} are free"
        raise ProvisioningFailure(message, "Free disk space, or set another cache_dir.", Retry.AFTER_FIX)


def _finish(download: Download, part: PartialFile) -> None:
    found = part.digest()
    if download.checksum is not None and found != download.checksum:
        part.discard()
        message = f"{download.shown_url} has the checksum {found}, but the pools file requires {download.checksum}"
        hint = "The file is damaged or not the expected one, or the checksum in the pools file is wrong."
        raise ProvisioningFailure(message, hint, Retry.REFETCH)
    part.publish()


def _disk_failure(download: Download, error: OSError) -> ProvisioningFailure:
    message = f"cannot store {download.shown_url} in {download.target.parent}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProvisioningFailure(message, "Free disk space, or set another cache_dir.", Retry.AFTER_FIX)
    return ProvisioningFailure(
        message, "Check that the directory exists and belongs to engine-provisioner.", Retry.AFTER_FIX
    )


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def describe_progress(done: int, total: int | None) -> str:
    """Return a text like `34 % of 4.1 GiB`."""
    return f"{100 * done // total} % of {_size(total)}" if total else _size(done)
