"""engine-provisioner fetches models from its sources, and serves them with a real llama-server."""

import hashlib
import json
import shutil
from pathlib import Path

from llama_orch.contracts.handoff import Handoff
from llama_orch.http.client.client import request
from tests.engines.debian_packages import PackagesUnavailable
from tests.engines.fixtures import skip_or_fail
from tests.engines.llama_server import Archive
from tests.imitations.flaky_link import FlakyLink, flaky_link
from tests.imitations.hub import COMMIT, Hub
from tests.integration.home import free_port
from tests.integration.provisioner import Provisioner, provisioner, start
from tests.services import registry
from tests.services.s3 import KEY_ID, SECRET, rclone, s3_server

TOKEN = "hf_" + "x" * 34


def pool_entry(archive: Archive, *keys: str) -> str:
    """Return the pools.toml entry of a pool whose engine is `archive`."""
    head = ["[[pools]]", 'id = "default"', "ctx = 256", *keys]
    mode = ['mode = "binary"', f'url = "file://{archive.path}"', f'checksum = "{archive.checksum}"']
    return "\n".join([*head, "[pools.provisioning]", *mode, "allow_binary_downloads = true", ""])


async def complete(handoff: Handoff) -> int:
    """Ask the engine for five tokens and return how many it generated."""
    body = json.dumps({"prompt": "the river", "n_predict": 5, "stream": False}).encode()
    async with request("POST", f"{handoff.url}/completion", body=body) as response:
        return int(json.loads(await response.read())["tokens_predicted"])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def size(path: Path) -> int:
    return path.stat().st_size


def hub_with(model: Path, root: Path) -> Hub:
    """Return a hub with the gated repository org/tiny, which has `model` in two quantizations."""
    for name in ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"):
        (root / "org/tiny").mkdir(parents=True, exist_ok=True)
        (root / "org/tiny" / name).write_bytes(model.read_bytes())
    return Hub(root, TOKEN)


async def test_hf_model_is_fetched_served_and_kept(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> None:
    hub = hub_with(tiny_model, tmp_path / "hub")
    pools = pool_entry(llama_server_tar, 'model = "hf:org/tiny"', 'quant = "Q8_0"')
    async with hub.serving():
        async with provisioner(tmp_path, pools, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN) as daemon:
            handoff = await daemon.ready("default")
            assert handoff.model is not None
            assert (handoff.model.id, handoff.model.digest) == ("hf:org/tiny", f"sha256:{digest(tiny_model)}")
            assert handoff.model.path.endswith(f"models--org--tiny/snapshots/{COMMIT}/tiny-Q8_0.gguf")
            assert await complete(handoff) == 5
            _status, metrics = await daemon.ask("/metrics")
            assert f'provisioner_downloaded_bytes_total{{pool_id="default"}} {float(size(tiny_model))}' in metrics
        assert TOKEN not in daemon.log
    async with provisioner(tmp_path, pools, HF_ENDPOINT=hub.url) as daemon:  # the hub is gone
        assert await complete(await daemon.ready("default")) == 5


async def test_killed_daemon_resumes_over_a_link_that_breaks(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    hub = hub_with(tiny_model, tmp_path / "hub")
    pools = pool_entry(llama_server_tar, 'model = "hf:org/tiny:Q8_0"')
    (tmp_path / "pools.toml").write_text(pools)
    async with hub.serving():
        link = FlakyLink(hub.storage.port, every_s=1.0, rate=200_000)
        async with flaky_link(link) as port:
            hub.delivery = f"http://127.0.0.1:{port}"
            environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
            first = Provisioner(tmp_path, await start(tmp_path, **environ))
            await first.until(lambda: link.counts.down > size(tiny_model) / 2)
            first.process.kill()
            await first.process.wait()
            async with provisioner(tmp_path, pools, **environ) as second:
                handoff = await second.ready("default")
                assert handoff.model is not None
                assert handoff.model.digest == f"sha256:{digest(tiny_model)}"
                assert await complete(handoff) == 5
    assert link.counts.broken > 0
    assert link.counts.down < 1.7 * size(tiny_model)  # what arrives within a second may be lost by the kill


async def test_gated_model_without_token_fails_with_a_hint(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    hub = hub_with(tiny_model, tmp_path / "hub")
    async with hub.serving():
        pools = pool_entry(llama_server_tar, 'model = "hf:org/tiny"')
        async with provisioner(tmp_path, pools, HF_ENDPOINT=hub.url) as daemon:
            error = await daemon.failed("default")
    assert "hf:org/tiny is gated, and no token is set" in error
    assert "set HF_TOKEN in /etc/llama-orch/engine-provisioner.env" in error


async def test_s3_model_is_fetched_from_rclone(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> None:
    program = rclone()
    if program is None:
        skip_or_fail("rclone is not installed; it is in requirements/dev.lock")
    (tmp_path / "buckets/models/dir").mkdir(parents=True)
    shutil.copy(tiny_model, tmp_path / "buckets/models/dir/tiny model.gguf")
    pools = pool_entry(llama_server_tar, 'model = "s3://models/dir/tiny model.gguf"')
    async with s3_server(program, tmp_path / "buckets", free_port()) as endpoint:
        keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY_ID}
        async with provisioner(tmp_path, pools, **keys, AWS_SECRET_ACCESS_KEY="wrong") as daemon:
            assert "refuses the signature" in await daemon.failed("default")
        async with provisioner(tmp_path, pools, **keys, AWS_SECRET_ACCESS_KEY=SECRET) as daemon:
            assert await complete(await daemon.ready("default")) == 5
        assert SECRET not in daemon.log


FORMS = {
    "docker": (
        "application/vnd.docker.ai.model.config.v0.1+json",
        ("application/vnd.docker.ai.gguf.v3", ""),
        registry.MANIFEST,
    ),
    "modelpack": (
        "application/vnd.cncf.model.config.v1+json",
        ("application/vnd.cncf.model.weight.v1.raw", "tiny.gguf"),
        registry.MANIFEST,
    ),
    "ollama": (
        "application/vnd.docker.container.image.v1+json",
        ("application/vnd.ollama.image.model", ""),
        "application/vnd.docker.distribution.manifest.v2+json",
    ),
}


async def test_oci_models_are_fetched_from_a_private_registry(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    try:
        program = registry.docker_registry()
    except PackagesUnavailable as error:
        skip_or_fail(f"docker-registry is not available: {error}")
    async with registry.registry(program, tmp_path / "registry", free_port(), private=True) as host:
        pools = []
        for name, (config, (kind, file_path), manifest_type) in FORMS.items():
            layers = [(kind, tiny_model, file_path)]
            await registry.push(host, f"org/{name}", "v1", layers, config, manifest_type=manifest_type)
            model = f'model = "oci://{host}/org/{name}:v1"'
            pools.append(pool_entry(llama_server_tar, model).replace('id = "default"', f'id = "{name}"'))
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: {"auth": registry.basic()}}}))
        auth = {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
        async with provisioner(tmp_path, "\n".join(pools), **auth) as daemon:
            for name in FORMS:
                handoff = await daemon.ready(name)
                assert handoff.model is not None
                assert handoff.model.digest == f"sha256:{digest(tiny_model)}"
                assert await complete(handoff) == 5
