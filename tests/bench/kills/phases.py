"""The phases in which a kill hits, each begun on purpose: the kill follows after a random part of a second."""

from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException

from tests.bench.kills.site import MODELS, PULLED, Site
from tests.system.lab.waiting import until

Begin = Callable[[Site, int, bool], object]
"""Begins a phase. The number chooses the pool; with True it is the one in a container."""
WITHIN_S = 8.0
LONG = 400


def begin_serving(site: Site, _number: int, boxed: bool) -> None:
    """Have a long answer written."""
    pool_id = "boxed" if boxed else "kept"
    site.clients.submit(MODELS[pool_id], LONG)
    reach(site, pool_id, "ready")


def begin_loading(site: Site, number: int, boxed: bool) -> None:
    """Have a pool loaded that is not loaded, if one is not."""
    pool_id = "boxed" if boxed else ("left", "right", "boxed")[number % 3]
    unload(site, pool_id)
    site.clients.submit(MODELS[pool_id])
    if not boxed:  # a kill of podman has to come early
        reach(site, pool_id, "provisioning", "starting", "ready")


def begin_evicting(site: Site, number: int, _boxed: bool) -> None:
    """Ask for one of two pools that exclude each other, while the other one is loaded."""
    loaded, wanted = ("left", "right") if number % 2 else ("right", "left")
    site.clients.submit(MODELS[loaded])
    reach(site, loaded, "ready")
    site.clients.submit(MODELS[wanted])


def begin_draining(site: Site, _number: int, _boxed: bool) -> None:
    """Drain a pool that is busy; it is resumed after the kill."""
    site.clients.submit(MODELS["kept"], LONG)
    with suppress(OSError, HTTPException):
        site.machine.pool_manager.post("/v2/pools/kept/drain", {"deadline_ms": 3000})


def begin_downloading(site: Site, number: int, _boxed: bool) -> None:
    """Pull a model that is not on the disk."""
    ref = PULLED[number % len(PULLED)]
    site.provisioner("DELETE", f"/v2/models?ref={ref}")
    site.provisioner("POST", "/v2/models/pull", {"ref": ref})


def begin_provisioning(site: Site, _number: int, _boxed: bool) -> None:
    """Let a pool fetch its model again: the daemon starts without it."""
    remove = "rm -rf /var/cache/llama-orch/huggingface/hub/models--org--right"
    site.container.run("sh", "-c", f"{remove} && systemctl restart --no-block engine-provisioner")


def begin_reloading(site: Site, number: int, _boxed: bool) -> None:
    """Reload a pool."""
    with suppress(OSError, HTTPException):
        site.machine.queen.post(f"/v2/pools/{('kept', 'left')[number % 2]}/reload", {})


PHASES: dict[str, Begin] = {
    "serving": begin_serving,
    "loading": begin_loading,
    "evicting": begin_evicting,
    "draining": begin_draining,
    "downloading": begin_downloading,
    "provisioning": begin_provisioning,
    "reloading": begin_reloading,
}


def can_reload(site: Site) -> bool:
    """Whether the package under test reloads pools."""
    return site.machine.queen.post("/v2/pools/kept/reload", {}).status not in (404, 405)


def end(site: Site) -> None:
    """Undo what a phase has begun and a kill does not end."""
    with suppress(OSError, HTTPException):
        site.machine.pool_manager.post("/v2/pools/kept/resume", None)


def unload(site: Site, pool_id: str) -> None:
    """Unload a pool unless it is busy."""
    with suppress(OSError, HTTPException):
        site.machine.pool_manager.post(f"/v2/pools/{pool_id}/unload", None)
    reach(site, pool_id, "unloaded")


def reach(site: Site, pool_id: str, *states: str) -> None:
    """Wait until the pool is in one of the states; a busy machine may take longer, and the kill comes anyway."""
    with suppress(TimeoutError):
        until(lambda: site.state(pool_id) in states, f"{pool_id} to be {states}", WITHIN_S)
