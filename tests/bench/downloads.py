"""Bytes on the wire for a model over a link that breaks every few seconds, with the daemon killed (SIGKILL) midway.

A real engine-provisioner fetches the model from each source. The link counts what the server sends. The registry is
Debian's docker-registry; web server, hub and S3 are imitations. (rclone, the real S3 of the tests, has no ranges.)

`python -m tests.bench.downloads [MB]`; 1000 MB by default.
"""

import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from llama_orch.contracts.pools import PoolState
from tests.engines.debian_packages import PackagesUnavailable
from tests.engines.llama_server import Archive, llama_server_archive
from tests.imitations.flaky_link import FlakyLink, flaky_link
from tests.imitations.hub import Hub
from tests.imitations.web_server import Reply, Request, WebServer
from tests.integration.home import free_port
from tests.integration.provisioner import Provisioner, start
from tests.services import registry
from tests.unit.engine_provisioner.gguf_files import header

EVERY_S = 3.0
RATE = 15_000_000
BLOCK = 4 << 20
PROMISE = 1.05


@dataclass(frozen=True)
class Origin:
    """Where the model is: the port of its server, and what to write into the pools file and the environment.

    `link` is the port through which the daemon reaches the server.
    """

    server_port: int
    reference: Callable[[int], str]
    environ: Callable[[int], dict[str, str]] = lambda _link: {}
    through: Callable[[int], None] = lambda _link: None


Opened = AbstractAsyncContextManager[Origin]


def write_model(path: Path, size: int) -> None:
    """Write a GGUF file with a tensor of `size` random bytes."""
    with path.open("wb") as file:
        file.write(header(size // 32 * 32))
        for start in range(0, size // 32 * 32, BLOCK):
            file.write(os.urandom(min(BLOCK, size // 32 * 32 - start)))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@asynccontextmanager
async def web(model: Path) -> AsyncIterator[Origin]:
    """A web server."""

    async def answer(_request: Request) -> Reply:
        return Reply(200, model, {"etag": '"v1"', "accept-ranges": "bytes"})

    async with WebServer(answer).serving() as server:
        yield Origin(server.port, lambda link: f"http://127.0.0.1:{link}/model.gguf")


@asynccontextmanager
async def s3(model: Path) -> AsyncIterator[Origin]:
    """A server like S3, which does not check signatures."""
    async with web(model) as origin:
        yield Origin(
            origin.server_port,
            lambda _link: "s3://bucket/dir/model.gguf",
            lambda link: {
                "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{link}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
            },
        )


@asynccontextmanager
async def hub(model: Path) -> AsyncIterator[Origin]:
    """The hub; its storage is behind the link."""
    (model.parent / "hub/org/repo").mkdir(parents=True)
    os.link(model, model.parent / "hub/org/repo/model-Q4_K_M.gguf")
    async with Hub(model.parent / "hub").serving() as running:

        def through(link: int) -> None:
            running.delivery = f"http://127.0.0.1:{link}"

        yield Origin(
            running.storage.port, lambda _link: "hf:org/repo", lambda _link: {"HF_ENDPOINT": running.url}, through
        )


@asynccontextmanager
async def oci(model: Path) -> AsyncIterator[Origin]:
    """A container registry."""
    program, port = registry.docker_registry(), free_port()
    async with registry.registry(program, model.parent / "registry", port) as host:
        layers = [("application/vnd.docker.ai.gguf.v3", model, "")]
        await registry.push(host, "org/model", "v1", layers, "application/vnd.docker.ai.model.config.v0.1+json")
        yield Origin(port, lambda link: f"oci://127.0.0.1:{link}/org/model:v1")


def pools(archive: Archive, reference: str) -> str:
    """Return a pools file with one pool, whose model is fetched and not loaded."""
    return "\n".join([
        "[[pools]]", 'id = "default"', "preload = false", f'model = "{reference}"',
        "[pools.timeouts]", "idle_ms = 10000",
        "[pools.provisioning]", 'mode = "binary"', f'url = "file://{archive.path}"', f'checksum = "{archive.checksum}"',
        "allow_binary_downloads = true",
    ])  # fmt: skip


async def fetch(directory: Path, environ: dict[str, str], killed_at: Callable[[], bool]) -> int:
    """Run the daemon until it has the model, killing it once when `killed_at` says so. Return its peak RSS in KiB."""
    daemon = Provisioner(directory, await start(directory, **environ))
    while not killed_at():
        await trio.sleep(0.02)
        assert daemon.process.poll() is None, daemon.log
    daemon.process.kill()
    await daemon.process.wait()
    daemon = Provisioner(directory, await start(directory, **environ))
    peak = 0
    while daemon.state("default") is not PoolState.OFFLINE:
        await trio.sleep(0.1)
        assert daemon.process.poll() is None, daemon.log
        peak = peak_kib(daemon.process.pid)
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.process.wait()
    return peak


def prepare(model: Path, directory: Path) -> tuple[int, str]:
    """Create `directory`; return size and digest of `model`."""
    directory.mkdir()
    return model.stat().st_size, digest(model)


def digests_of(directory: Path, size: int) -> list[str]:
    """Return the digests of the files below `directory` that have `size` bytes."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return [digest(path) for path in files if path.stat().st_size == size]


def peak_kib(pid: int) -> int:
    """Return the most memory that the process has had resident, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


async def measure(name: str, open_origin: Callable[[Path], Opened], model: Path, archive: Archive) -> bool:
    """Fetch `model` once and print the figures. Return whether the promises were kept."""
    directory = model.parent / name
    size, expected = prepare(model, directory)
    async with open_origin(model) as origin:
        link = FlakyLink(origin.server_port, EVERY_S, RATE)
        async with flaky_link(link) as port:
            origin.through(port)
            (directory / "pools.toml").write_text(pools(archive, origin.reference(port)))
            begun = time.perf_counter()
            peak = await fetch(directory, origin.environ(port), lambda: link.counts.down > size / 2)
            seconds = time.perf_counter() - begun
    good = digests_of(directory / "cache", size) == [expected]
    ratio = link.counts.down / size
    verdict = "digest ok" if good else "WRONG DIGEST"
    connections = f"{link.counts.connections} connections, {link.counts.broken} broken"
    figures = f"{ratio:.4f} bytes on the wire per byte, {connections}, {seconds:.0f} s, peak {peak / 1024:.0f} MiB"
    print(f"  {name:6}{verdict}, {figures}", flush=True)
    return good and ratio <= PROMISE


async def measure_all(megabytes: int) -> bool:
    """Measure all sources."""
    sources: dict[str, Callable[[Path], Opened]] = {"https": web, "hf": hub, "s3": s3, "oci": oci}
    print(f"downloads of {megabytes} MB over connections that break every {EVERY_S:g} s, killed once", flush=True)
    kept = []
    archive = llama_server_archive()
    for name, open_origin in sources.items():
        with tempfile.TemporaryDirectory() as workspace:
            model = Path(workspace) / "model.gguf"
            write_model(model, megabytes * 1_000_000)
            try:
                kept.append(await measure(name, open_origin, model, archive))
            except PackagesUnavailable as error:
                print(f"  {name:6}skipped: {error}")
    return all(kept)


def main(megabytes: int = 1000) -> None:
    """Print the figures; exit with 1 if a promise was not kept."""
    if not trio.run(measure_all, megabytes):
        sys.exit("a download was damaged or cost too much")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
