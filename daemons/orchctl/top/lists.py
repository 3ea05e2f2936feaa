"""The lists of the view: their columns, their orders, and what identifies an element. Pure functions of a situation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llama_orch.contracts.gpus import GpuView
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.contracts.tasks import TaskState, TaskView
from orchctl.tables import UNKNOWN, duration, gib, one_line, ordinal
from orchctl.top.board import LiveNode, Situation
from orchctl.top.spans import BAD, DIM, GOOD, PLAIN, WARNING, Span, Style

BAR_COLUMNS = 12
BUSY_FROM, FULL_FROM = 0.7, 0.9
"""Shares from which a bar is a warning, or bad."""
HOT_C = 85
STATE_STYLES = {
    **dict.fromkeys(("online", "ready", "ok", "running"), GOOD),
    **dict.fromkeys(("draining", "throttled", "starting", "provisioning", "registering"), WARNING),
    **dict.fromkeys(("failed", "offline", "fenced", "lost", "unknown"), BAD),
    **dict.fromkeys(("asleep", "unloaded", "uninitialized", "queued"), DIM),
}


@dataclass(frozen=True)
class Column:
    """`rank` is the order in which columns are left out where there is no room: the highest first, 0 never."""

    title: str
    cell: Callable[[Any, Situation], Span]
    rank: int = 0


@dataclass(frozen=True)
class Order:
    name: str
    key: Callable[[Any, Situation], Any]


@dataclass(frozen=True)
class Listing:
    name: str
    elements: Callable[[Situation], Sequence[Any]]
    key: Callable[[Any], str]
    columns: Sequence[Column]
    orders: Sequence[Order]


def text(value: str, style: Style = PLAIN) -> Span:
    return Span(one_line(value), style)


def state(value: str) -> Span:
    return Span(one_line(value), STATE_STYLES.get(value.partition(",")[0], PLAIN))


def number(value: float | None, unit: str = "", *, bad_from: float | None = None) -> Span:
    if value is None:
        return Span(UNKNOWN, DIM)
    return Span(f"{value:.0f}{unit}", BAD if bad_from is not None and value >= bad_from else PLAIN)


def bar(used: float, total: float) -> Span:
    """Return a bar such as `[|||||     ]`, BAR_COLUMNS wide."""
    share = min(max(used / total, 0.0), 1.0) if total > 0 else 0.0
    inner = BAR_COLUMNS - 2
    filled = round(share * inner)
    style = BAD if share >= FULL_FROM else WARNING if share >= BUSY_FROM else GOOD
    return Span(f"[{'|' * filled}{' ' * (inner - filled)}]", style)


def used_bytes(gpu: GpuView) -> int:
    return max(0, gpu.vram_total_bytes - gpu.vram_free_bytes)


def gpu_name(gpu: GpuView) -> str:
    where = f"{gpu.node_id}:" if gpu.node_id else ""
    return f"{where}{gpu.index}" if gpu.mig_index is None else f"{where}{gpu.index}.{gpu.mig_index}"


def pool_name(pool: PoolStatus) -> str:
    return f"{pool.pool_id}@{pool.node_id}" if pool.node_id else pool.pool_id


def pool_state(pool: PoolStatus) -> str:
    draining = pool.draining and pool.state is not PoolState.DRAINING
    return (
        "draining" if draining else pool.state if pool.circuit == "closed" else f"{pool.state}, circuit {pool.circuit}"
    )


def _node_pools(node: LiveNode, situation: Situation) -> list[PoolStatus]:
    return [pool for pool in situation.pools if pool.node_id == node.node_id]


def _node_slots(node: LiveNode, situation: Situation) -> Span:
    return _busy(_node_pools(node, situation))


def _busy(pools: Sequence[PoolStatus]) -> Span:
    """Return busy and all slots of the pools that have an engine."""
    total = sum(pool.slots_total for pool in pools if pool.ready)
    busy = total - sum(pool.slots_free for pool in pools if pool.ready)
    return Span(f"{busy}/{total}") if total else Span(UNKNOWN, DIM)


def _node_ready(node: LiveNode, situation: Situation) -> Span:
    pools = _node_pools(node, situation)
    return Span(f"{sum(pool.ready for pool in pools)}/{len(pools)}")


def waiting_s(task: TaskView, now: datetime) -> float:
    """Return how long a task has waited, or waited before it ran, in seconds."""
    if task.timings.queued_ms is not None and task.state is TaskState.RUNNING:
        return task.timings.queued_ms / 1000
    return max(0.0, (now - task.timings.submitted_at).total_seconds())


def tokens_per_s(task: TaskView, now: datetime) -> float | None:
    """Return the rate since the first token; None before it."""
    first_ms = task.timings.first_token_ms
    if task.state is not TaskState.RUNNING or first_ms is None:
        return None
    elapsed = (now - task.timings.submitted_at).total_seconds() - first_ms / 1000
    return task.usage.tokens_out / elapsed if elapsed > 0 else None


def _position(task: TaskView, _situation: Situation) -> Span:
    return Span(UNKNOWN if task.queue_position is None else ordinal(task.queue_position + 1), DIM)


def _starts_in(task: TaskView, _situation: Situation) -> Span:
    known = task.predicted_start_ms if task.state is TaskState.QUEUED else None
    return Span(UNKNOWN if known is None else duration(known / 1000), DIM)


def _in_service_order(task: TaskView, _situation: Situation) -> tuple[bool, float, str]:
    """Order the tasks that run by their start, then those that wait by position."""
    if task.state is TaskState.RUNNING:
        started = task.timings.started_at or task.timings.submitted_at
        return False, started.timestamp(), str(task.task_id)
    return True, float(task.queue_position or 0), str(task.task_id)


NODES = Listing(
    "nodes",
    lambda situation: situation.nodes,
    lambda node: str(node.node_id),
    (
        Column("NODE", lambda node, _: text(node.node_id)),
        Column("STATUS", lambda node, _: state(node.status)),
        Column("READY", _node_ready, 2),
        Column("BUSY", _node_slots, 1),
        Column("VERSION", lambda node, _: text(node.version, DIM), 4),
        Column("ADDRESS", lambda node, _: text(node.address, DIM), 5),
    ),
    (
        Order("name", lambda node, _: node.node_id),
        Order("status", lambda node, _: (node.status, node.node_id)),
        Order("version", lambda node, _: (node.version, node.node_id)),
    ),
)
POOLS = Listing(
    "pools",
    lambda situation: situation.pools,
    pool_name,
    (
        Column("POOL", lambda pool, _: text(pool_name(pool))),
        Column("STATE", lambda pool, _: state(pool_state(pool))),
        Column("BUSY", lambda pool, _: _busy([pool]), 1),
        Column("DEVICES", lambda pool, _: text(pool.device_mask or "", DIM), 4),
        Column("ENGINE", lambda pool, _: text(pool.engine, DIM), 5),
        Column("MODELS", lambda pool, _: text(", ".join(pool.models_available), DIM), 3),
    ),
    (
        Order("name", lambda pool, _: pool_name(pool)),
        Order("state", lambda pool, _: (pool_state(pool), pool_name(pool))),
        Order("busy", lambda pool, _: (pool.slots_free - pool.slots_total if pool.ready else 0, pool_name(pool))),
    ),
)
GPUS = Listing(
    "gpus",
    lambda situation: situation.gpus,
    lambda gpu: f"{gpu.node_id or ''}/{gpu.uuid}",
    (
        Column("GPU", lambda gpu, _: text(gpu_name(gpu))),
        Column("MEMORY", lambda gpu, _: bar(used_bytes(gpu), gpu.vram_total_bytes)),
        Column("GIB", lambda gpu, _: Span(f"{gib(used_bytes(gpu))}/{gib(gpu.vram_total_bytes)}"), 2),
        Column("BUSY", lambda gpu, _: number(gpu.utilization, "%"), 1),
        Column("TEMP", lambda gpu, _: number(gpu.temperature_c, " C", bad_from=gpu.slowdown_c or HOT_C), 4),
        Column("POWER", lambda gpu, _: number(gpu.power_w, " W"), 5),
        Column("STATE", lambda gpu, _: state(gpu.state), 3),
        Column("NAME", lambda gpu, _: text(gpu.name, DIM), 6),
    ),
    (
        Order("name", lambda gpu, _: (gpu.node_id or "", gpu.index, gpu.mig_index or 0)),
        Order("memory", lambda gpu, _: (-used_bytes(gpu), gpu.uuid)),
        Order("busy", lambda gpu, _: (-(gpu.utilization or 0), gpu.uuid)),
        Order("temperature", lambda gpu, _: (-(gpu.temperature_c or 0), gpu.uuid)),
    ),
)
TASKS = Listing(
    "tasks",
    lambda situation: situation.tasks,
    lambda task: str(task.task_id),
    (
        Column("TASK", lambda task, _: Span(str(task.task_id)[:8])),
        Column("STATE", lambda task, _: state(task.state)),
        Column("PLACE", _position, 1),
        Column("WAIT", lambda task, now: Span(duration(waiting_s(task, now.now))), 2),
        Column("STARTS IN", _starts_in, 4),
        Column("TOKENS", lambda task, _: number(task.usage.tokens_out), 2),
        Column("TOKENS/S", lambda task, now: _rate(tokens_per_s(task, now.now)), 1),
        Column("POOL", lambda task, _: text(task.pool_id or ""), 3),
        Column("PRIORITY", lambda task, _: text(task.priority, DIM), 5),
        Column("MODEL", lambda task, _: text(task.model_ref or "", DIM), 6),
    ),
    (
        Order("service", _in_service_order),
        Order("wait", lambda task, now: (-waiting_s(task, now.now), str(task.task_id))),
        Order("tokens", lambda task, _: (-task.usage.tokens_out, str(task.task_id))),
        Order("rate", lambda task, now: (-(tokens_per_s(task, now.now) or 0), str(task.task_id))),
    ),
)
LISTS = (NODES, POOLS, GPUS, TASKS)


def _rate(value: float | None) -> Span:
    return Span(UNKNOWN, DIM) if value is None else Span(f"{value:.1f}")


def shown_lists(situation: Situation) -> list[Listing]:
    """Return the lists to show: nodes exist only in CLOUD_PROFILE."""
    return [each for each in LISTS if each is not NODES or situation.nodes]
