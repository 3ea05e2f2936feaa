"""engine-provisioner's nursery: a supervisor for each pool, the loop that oversees them, and the local API."""

import os
from functools import partial
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from engine_provisioner import ports, progress
from engine_provisioner.acquiring import Acquiring
from engine_provisioner.board import Board
from engine_provisioner.child_launcher import ChildLauncher
from engine_provisioner.command import cache_ram_mib
from engine_provisioner.launcher import Launcher
from engine_provisioner.managed_pool import ManagedPool, Workshop
from engine_provisioner.pool_spec import Pool
from engine_provisioner.pools_file import read
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.supervisor import Supervisor
from engine_provisioner.voice import Voice
from llama_orch import VERSION
from llama_orch.http.app import create_app
from llama_orch.http.gate import Access, Gate
from llama_orch.http.serving import serve
from llama_orch.service import listeners
from llama_orch.service.run import Service
from llama_orch.telemetry.events import DAEMON_READY
from llama_orch.telemetry.records import emit

DRAIN_S = 3.0


async def run(settings: ProvisionerSettings, service: Service) -> None:
    """The daemon, until `service.stop` is set."""
    pools = await trio.to_thread.run_sync(read, settings.pools_config or Path("pools.toml")) or []
    handoff_dir = settings.handoff_dir.absolute()
    (handoff_dir / "status").mkdir(parents=True, exist_ok=True)
    registry = CollectorRegistry()
    board = Board(handoff_dir / "status", registry)
    sockets = listeners.local(service, handoff_dir.parent / "engine-provisioner.sock")
    app = Gate(create_app(__name__, board.waiting_for, registry), Access())
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, app, sockets, shutdown=service.stop, drain_s=DRAIN_S))
        launcher = ChildLauncher(nursery)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        shop = Workshop(
            settings.gpu_mask, cache_ram_mib(memory, len(pools)), Acquiring(settings.cache_dir.absolute()), launcher,
            ports.Ports(pools, {}),
        )
        async with trio.open_nursery() as supervisors:
            for pool in pools:
                promise = progress.Progress(pool.id)
                voice = Voice(pool, board, handoff_dir)
                await supervisors.start(Supervisor(ManagedPool(pool, shop, voice, promise), voice, promise).run)
            service.notifier.ready(board.summary())
            emit(DAEMON_READY, daemon=service.name, version=VERSION, address=sockets[0].getsockname())
            await service.stop.wait()
            supervisors.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
