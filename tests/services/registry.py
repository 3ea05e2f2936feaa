"""Debian's docker-registry, and pushing models into its directory by its API."""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from llama_orch.http.client.client import request
from tests.engines.cache import cached
from tests.engines.debian_packages import Pin, unpack
from tests.services.running import running

PINS = (Pin("docker-registry", "2.8.2+ds1-1", "a9bd06c0e006854608f8469b4371743f40604ad90975532bb3b7ceeb72fe2913"),)
USER, PASSWORD = "reader", "opensesame"
HTPASSWD = f"{USER}:$2b$05$IpS4/5rgx6YcYkcovL28UONf6JvngpYaHn/HlXOX5nblwpBokeGFi\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Layer = tuple[str, Path, str]
"""Media type, file, and its name in org.cncf.model.filepath, or an empty text."""


def docker_registry() -> Path:
    """Return the program. It is fetched once for each machine. Raises PackagesUnavailable."""
    key = hashlib.sha256(repr(PINS).encode()).hexdigest()[:12]
    return cached(f"docker-registry-{key}", _assemble)


def _assemble(target: Path) -> None:
    with tempfile.TemporaryDirectory() as workspace:
        tree, _versions = unpack(PINS, "bookworm", Path(workspace))
        shutil.copy(tree / "usr/bin/docker-registry", target)


@asynccontextmanager
async def registry(program: Path, directory: Path, port: int, *, private: bool = False) -> AsyncIterator[str]:
    """Serve a registry with its data in `directory`; yield its host and port. `private`: USER must log in."""
    _configure(directory, port, private)
    env = {"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"}
    async with running([program, "serve", directory / "config.yml"], port, directory / "log", env):
        yield f"127.0.0.1:{port}"


def _configure(directory: Path, port: int, private: bool) -> None:
    directory.mkdir(exist_ok=True)
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}}}",
        f"http: {{addr: 127.0.0.1:{port}}}",
    ]
    if private:
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}")
    (directory / "config.yml").write_text("\n".join([*lines, ""]))
    (directory / "htpasswd").write_text(HTPASSWD)


def basic() -> str:
    """Return the credentials of USER as Basic authentication needs them."""
    return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


async def push(
    host: str, name: str, tag: str, layers: Sequence[Layer], config_type: str, *, manifest_type: str = MANIFEST
) -> str:
    """Push a model; return the digest of its manifest."""
    config = await _push_blob(host, name, b"{}")
    entries = []
    for media_type, path, file_path in layers:
        entry: dict[str, object] = {"mediaType": media_type, **await _push_blob(host, name, path.read_bytes())}
        entries.append(entry | ({"annotations": {"org.cncf.model.filepath": file_path}} if file_path else {}))
    manifest = {"schemaVersion": 2, "mediaType": manifest_type, "config": {"mediaType": config_type, **config}}
    body = json.dumps(manifest | {"layers": entries}).encode()
    await _send("PUT", f"http://{host}/v2/{name}/manifests/{tag}", body, manifest_type)
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


async def _push_blob(host: str, name: str, content: bytes) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    location = await _send("POST", f"http://{host}/v2/{name}/blobs/uploads/", b"", "application/octet-stream")
    await _send("PUT", f"{location}&digest={digest}", content, "application/octet-stream")
    return {"digest": digest, "size": len(content)}


async def _send(method: str, url: str, body: bytes, content_type: str) -> str:
    headers = {"content-type": content_type, "authorization": f"Basic {basic()}"}
    async with request(method, url, body=body, headers=headers) as response:
        answer = await response.read()
        assert response.status in (201, 202), (response.status, answer)
        return response.headers.get("location", "")
