"""What mode source would do: use a built engine, or build one with these tools."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from engine_provisioner import engine_record
from engine_provisioner.build import machine, publication, toolchain
from engine_provisioner.build.checkout import COMMIT
from engine_provisioner.build.order import SourceOrder
from engine_provisioner.build.recipe import ARCHITECTURES, flag_value, job_count
from engine_provisioner.build.setup import Lacking, Setup, set_up
from engine_provisioner.build.workshop import workshop_of
from engine_provisioner.engine_record import EngineRecord
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes.planning import EnginePlan, PlanSite, Step, StepState, blocked
from llama_orch.urls import without_secrets


async def plan_build(order: SourceOrder, site: PlanSite) -> EnginePlan:
    """Return the steps to the engine of `order`."""
    subject = without_secrets(order.url) + (f" at {order.ref}" if order.ref else "")
    setup = await set_up(order)
    if found := await _built(order, setup, site):
        directory, record = found
        commit = (record.commit or "").removeprefix("sha256:")[:12]
        pinned = order.archive or (order.ref and COMMIT.fullmatch(order.ref))
        detail = f"built from {commit} on {record.built_at:%Y-%m-%d}"
        detail += "" if pinned else "; looked up again at each start"
        step = Step("engine", subject, StepState.PRESENT, detail)
        return EnginePlan((step,), (str(directory / (record.executable or "")),), directory)
    if isinstance(setup, Lacking):
        return EnginePlan((blocked("engine", subject, toolchain.missing_failure(setup.tools)),))
    steps = [await _archive(order, site), await _build(setup, subject)]
    return EnginePlan(tuple(step for step in steps if step))


async def _built(order: SourceOrder, setup: Setup | Lacking, site: PlanSite) -> tuple[Path, EngineRecord] | None:
    """Return directory and record of the engine that is built for `order`, as far as that is known without git."""
    last = await trio.to_thread.run_sync(
        workshop_of(order.url, order.build_cache, site.cache_dir).recall, order.configuration
    )
    identity = order.ref if order.ref and COMMIT.fullmatch(order.ref) else last[0] if last else None
    if identity is None:
        return None
    if isinstance(setup, Setup):
        key = order.key(setup.recipe, identity)
    elif last:
        key = last[1]
    else:
        return None
    directory = publication.engine_directory(site.cache_dir, key)
    record = await trio.to_thread.run_sync(engine_record.read, directory)
    return (directory, record) if record else None


async def _archive(order: SourceOrder, site: PlanSite) -> Step | None:
    """Return the step of an archive that is not here yet."""
    if order.archive is None:
        return None
    shown = without_secrets(order.archive)
    if not order.archive.startswith("file:"):
        return Step("source", shown, StepState.DOWNLOAD, size_bytes=await site.size_of(order.archive))
    path = Path(unquote(urlsplit(order.archive).path))
    if await trio.Path(path).is_file():
        return Step("source", shown, StepState.PRESENT)
    failure = ProvisioningFailure(f"the source archive {path} does not exist", "Correct archive.", Retry.AFTER_FIX)
    return blocked("source", shown, failure)


async def _build(setup: Setup, subject: str) -> Step:
    available = await trio.to_thread.run_sync(machine.available_bytes)
    jobs = job_count(machine.cores(), available, cuda=setup.cuda is not None)
    details = [setup.recipe.generator, f"{jobs} at a time", f"{'with' if setup.ccache else 'without'} ccache"]
    if setup.cuda:
        architectures = flag_value(setup.recipe.flags, ARCHITECTURES) or "chosen by cmake"
        details.append(f"CUDA because of {setup.cuda}, architectures {architectures}")
    else:
        details.append("without CUDA")
    return Step("engine", subject, StepState.BUILD, ", ".join((*details, *setup.recipe.compilers)))
