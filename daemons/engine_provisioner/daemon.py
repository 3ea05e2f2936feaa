"""engine-provisioner's nursery: a supervisor for each pool, the loop that oversees them, and the local API."""

import logging
import os
from functools import partial
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from engine_provisioner import clearing
from engine_provisioner.acquire.acquiring import Acquiring, Fetched
from engine_provisioner.launch import systemd_launcher
from engine_provisioner.launch.child_launcher import ChildLauncher
from engine_provisioner.launch.command import cache_ram_mib
from engine_provisioner.launch.launcher import Launcher
from engine_provisioner.launch.ports import Ports
from engine_provisioner.launch.systemd_launcher import SystemdLauncher
from engine_provisioner.progress import Progress, overdue
from engine_provisioner.report.board import Board
from engine_provisioner.report.voice import Voice
from engine_provisioner.settings import METRICS_VARIABLE, ProvisionerSettings
from engine_provisioner.spec import pools_file
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.provisioning_spec import External
from engine_provisioner.supervise.external_pool import ExternalPool
from engine_provisioner.supervise.managed_pool import ManagedPool, Workshop
from engine_provisioner.supervise.supervisor import Life, Supervisor
from llama_orch import VERSION
from llama_orch.contracts.pools import POOLS_EXAMPLE
from llama_orch.http.server.app import create_app, metrics_app
from llama_orch.http.server.browsers import WebPolicy, own_names
from llama_orch.http.server.gate import Access, Gate
from llama_orch.http.server.serving import serve
from llama_orch.service import listeners
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.memory import release_after_start
from llama_orch.service.run import Service
from llama_orch.service.watchdog import Pulse
from llama_orch.telemetry.events.provisioning import POOLS_FILE_ABSENT
from llama_orch.telemetry.events.service import DAEMON_READY, DAEMON_STOPPING
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.daemon")

DRAIN_S = 3.0
SOCKET = "engine-provisioner.sock"


async def run(settings: ProvisionerSettings, service: Service) -> None:
    """The daemon, until `service.stop` is set. Raises StartupError."""
    pools = await trio.to_thread.run_sync(load, settings)
    handoff_dir = settings.handoff_dir.absolute()
    await trio.to_thread.run_sync(prepare_directory, handoff_dir, [pool.id for pool in pools])
    registry = CollectorRegistry()
    board = Board(handoff_dir / "status", registry)
    sockets = listeners.local(service, handoff_dir.parent / SOCKET)
    address = sockets[0].getsockname()
    app = Gate(create_app(__name__, board.waiting_for, registry), Access())
    promises = [Progress(pool.id) for pool in pools]
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve, app, sockets, shutdown=service.stop, drain_s=DRAIN_S, pulse=service.watchdog.pulse)
        )
        await nursery.start(oversee, service, board, promises, service.watchdog.pulse("supervisors"))
        await _start_metrics(settings, service, registry, nursery)
        nursery.start_soon(board.keep)
        launcher = _launcher(service, nursery)
        nursery.start_soon(clearing.retire_unwanted, pools, launcher)
        shop = await _workshop(settings, pools, launcher, board.metrics.fetched)
        async with trio.open_nursery() as supervisors:
            for pool, promise in zip(pools, promises, strict=True):
                voice = Voice(pool, board, handoff_dir)
                await voice.unstarted()
                await supervisors.start(Supervisor(_life(pool, shop, voice, promise), voice, promise).run)
            release_after_start()
            service.notifier.ready(board.summary())
            emit(DAEMON_READY, daemon=service.name, version=VERSION, address=address)
            await service.stop.wait()
            emit(DAEMON_STOPPING, daemon=service.name, detail=_at_stop(launcher))
            supervisors.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def load(settings: ProvisionerSettings) -> list[Pool]:
    """The pools of the pools file; none, said once, where there is no such file. Blocks; raises StartupError."""
    path = pools_file.path_for(settings.pools_config)
    try:
        pools = pools_file.read(path)
    except pools_file.PoolsFileError as error:  # it was right when the start began
        raise StartupError(str(error), "See llama-orch-pools(5).", ExitStatus.CONFIG) from error
    if pools is None:
        emit(POOLS_FILE_ABSENT, path=path, example=POOLS_EXAMPLE)
    return pools or []


def prepare_directory(handoff_dir: Path, wanted: list[str]) -> None:
    """Make the handoff directory, and clear it of what earlier runs announced. Blocks; raises StartupError."""
    try:
        (handoff_dir / "status").mkdir(parents=True, exist_ok=True)
        for pool_id in clearing.withdraw_all(handoff_dir, wanted):
            log.info("pool %s is in the pools file no more: withdrawn", pool_id)
    except OSError as error:
        what = f"the handoff directory {handoff_dir} cannot be used: {error.strerror or error} ({error.filename})"
        hint = "Make it the daemon's, or set ENGINE_PROVISIONER_HANDOFF_DIR."
        raise StartupError(what, hint, ExitStatus.CANNOT_CREATE) from error


async def oversee(
    service: Service,
    board: Board,
    promises: list[Progress],
    pulse: Pulse,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep STATUS= true, and the watchdog fed as long as each supervisor moves on as it promised."""
    task_status.started()
    while True:
        changed = board.changed
        if not service.stop.is_set():
            service.notifier.status(board.summary())
        if broken := overdue(promises):
            log.error("no progress: %s", "; ".join(broken))
            await trio.sleep(pulse.interval_s)
        else:
            await pulse.wait(changed)


def _launcher(service: Service, nursery: trio.Nursery) -> Launcher:
    if systemd_launcher.in_charge(service.environ, os.getpid()):
        return SystemdLauncher()
    return ChildLauncher(nursery)


async def _start_metrics(
    settings: ProvisionerSettings, service: Service, registry: CollectorRegistry, nursery: trio.Nursery
) -> None:
    """Serve /metrics on TCP where an address is set: on loopback to this machine, elsewhere to whoever connects."""
    if (address := settings.metrics_address) is None:
        return
    app = metrics_app(service.name, registry)
    served = Gate(app, Access(everybody=not address.loopback), web=WebPolicy(own_names=own_names(address.host)))
    sockets = listeners.tcp(service, "metrics", address, "metrics", METRICS_VARIABLE)
    start = partial(serve, shutdown=service.stop, drain_s=DRAIN_S, pulse=service.watchdog.pulse)
    await nursery.start(start, served, sockets)


async def _workshop(settings: ProvisionerSettings, pools: list[Pool], launcher: Launcher, fetched: Fetched) -> Workshop:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commands = await launcher.remembered()
    remembered = {pool_id: known.port for pool_id, known in commands.items() if known.port is not None}
    return Workshop(
        gpu_mask=settings.gpu_mask,
        cache_ram_mib=cache_ram_mib(memory),
        acquiring=Acquiring(settings.cache_dir.absolute(), fetched),
        launcher=launcher,
        ports=Ports(pools, remembered),
    )


def _life(pool: Pool, shop: Workshop, voice: Voice, progress: Progress) -> Life:
    if isinstance(pool.provisioning, External):
        return ExternalPool(pool, pool.provisioning, voice, progress)
    return ManagedPool(pool, shop, voice, progress)


def _at_stop(launcher: Launcher) -> str:
    return "the engines go on" if isinstance(launcher, SystemdLauncher) else "the engines end with it"
