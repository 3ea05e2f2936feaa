"""Plans as text for people and as JSON for programs."""

import json
import shlex
from collections.abc import Iterator

from engine_provisioner.modes.planning import Step, StepState
from engine_provisioner.plan.pool_plan import PoolPlan


def as_text(plans: list[PoolPlan]) -> str:
    """Return the plans as text, with an empty line between pools."""
    return "\n\n".join("\n".join(_lines(plan)) for plan in plans) or "no pools"


def _lines(plan: PoolPlan) -> Iterator[str]:
    now = f" (now {plan.state})" if plan.state else ""
    yield f"pool {plan.pool_id}: {plan.engine}, mode {plan.mode}, {_verdict(plan)}{now}"
    for step in plan.steps:
        yield f"  {step.name:<8} {_step_text(step)}"
    if plan.gates:
        yield f"  {'allowed':<8} by {', '.join(plan.gates)} = true"
    if plan.record:
        yield from _record_lines(plan)
    for gpu in plan.gpus:
        yield f"  {'GPU':<8} {gpu}"
    if plan.port:
        yield f"  {'port':<8} 127.0.0.1:{plan.port}"
    if plan.env:
        yield f"  {'env':<8} {' '.join(f'{name}={shlex.quote(value)}' for name, value in plan.env.items())}"
    if plan.command:
        yield f"  {'expected' if plan.command_is_expected else 'command':<8} {shlex.join(plan.command)}"
    for problem in plan.problems:
        yield f"  {'problem':<8} {problem.message}"
        if problem.hint:
            yield f"  {'':<8} {problem.hint}"


def _record_lines(plan: PoolPlan) -> Iterator[str]:
    record = plan.record
    assert record is not None
    yield f"  {'version':<8} {record.version or 'unknown'}, {record.digest}"
    if record.flags:
        yield f"  {'flags':<8} {shlex.join(record.flags)}"
    if record.compilers:
        yield f"  {'compiler':<8} {', '.join(record.compilers)}"


def _verdict(plan: PoolPlan) -> str:
    return "cannot start" if plan.problems else "can start"


def _step_text(step: Step) -> str:
    size = f" {size_text(step.size_bytes)}" if step.size_bytes is not None else ""
    if step.state is StepState.DOWNLOAD and not size:
        size = " (the server does not tell how much)"
    detail = f" ({step.detail})" if step.detail else ""
    return f"{step.subject}: {step.state.value}{' be obtained' if step.failure else size}{detail}"


def size_text(count: int) -> str:
    """Return a number of bytes as in `4.1 GiB`."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def as_json(plans: list[PoolPlan], status: int) -> str:
    """Return the plans as JSON text; `status` is the exit status."""
    return json.dumps({"exit_status": int(status), "pools": [_document(plan) for plan in plans]}, indent=1)


def _document(plan: PoolPlan) -> dict[str, object]:
    return {
        "pool_id": plan.pool_id,
        "engine": plan.engine,
        "mode": plan.mode,
        "state": plan.state,
        "can_start": not plan.problems,
        "steps": [
            {
                "name": step.name,
                "subject": step.subject,
                "state": step.state.name.lower(),
                "detail": step.detail,
                "size_bytes": step.size_bytes,
            }
            for step in plan.steps
        ],
        "gates": list(plan.gates),
        "engine_record": plan.record.model_dump(mode="json", exclude={"options"}) if plan.record else None,
        "gpus": plan.gpus,
        "port": plan.port,
        "command": plan.command,
        "command_is_expected": plan.command_is_expected,
        "env": plan.env,
        "problems": [
            {"message": problem.message, "hint": problem.hint, "configured": problem.configured}
            for problem in plan.problems
        ],
    }
