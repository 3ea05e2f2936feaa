"""engine-provisioner fetches models from its sources, and serves them with a real llama-server."""

import hashlib
import json
from pathlib import Path

from llama_orch.contracts.handoff import Handoff
from llama_orch.http.client.client import request
from tests.engines.llama_server import Archive
from tests.imitations.hub import COMMIT, Hub
from tests.integration.provisioner import provisioner

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
