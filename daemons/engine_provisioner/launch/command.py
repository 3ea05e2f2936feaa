"""From a pool and an engine to the command line: pure, and the one place that knows llama-server's options.

Options drift between releases, so that each optional one is passed only where `--help` names it. A flag of the
pool wins over what would be passed by itself.
"""

from collections.abc import Iterator

from engine_provisioner.engine import Engine, EngineCommand, LocalModel
from engine_provisioner.spec.model_name import short_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import OPTIONS, mode

ALL_LAYERS = "999"
HOST = "127.0.0.1"
NO_ORIGIN = "http://none.invalid"
"""By default llama-server lets web pages of every origin read its answers; the daemons ask it without one."""
BATCH_VARIABLES = {"LLAMA_ARG_BATCH": "--batch-size", "LLAMA_ARG_UBATCH": "--ubatch-size"}
CACHE_RAM_MAX_MIB = 2048
CACHE_RAM_SHARE = 16
"""An engine keeps old prompts in at most one in so many parts of the machine's memory."""


def llama_server(
    pool: Pool, engine: Engine, model: LocalModel, *, port: int, devices: tuple[int, ...], cache_ram_mib: int
) -> EngineCommand:
    """The command that serves `model` for `pool` on `port`; no `devices` means on the CPU.

    llama-server divides its context among its slots, and the pool's `ctx` is that of each slot.
    """
    argv = [*engine.program.argv, "-m", str(model.path), "--host", HOST, "--port", str(port)]
    argv += ["-c", str(pool.ctx * pool.slots), "-np", str(pool.slots)]
    given = {flag.partition("=")[0] for flag in pool.flags} | {BATCH_VARIABLES.get(name, name) for name in pool.env}
    for names, values in (*_optional(pool, devices, cache_ram_mib), *_named(model)):
        name = engine.first_known(*names)
        if name and not given & {*names, *_opposites(names)}:
            argv += [name, *values]
    if not devices and not engine.first_known("--device"):
        argv += ["-ngl", "0"]
    return EngineCommand((*argv, *pool.flags), environment(pool, devices))


def _optional(
    pool: Pool, devices: tuple[int, ...], cache_ram_mib: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(names an option has had, its values) for what is passed where the engine knows it."""
    yield ("--cont-batching", "-cb"), ()
    yield ("--metrics",), ()
    yield ("--slots",), ()
    yield ("--no-webui", "--no-ui"), ()
    yield ("--offline",), ()
    yield ("--cache-ram", "-cram"), (str(cache_ram_mib),)
    yield ("--cors-origins",), (NO_ORIGIN,)
    if mode(pool).embeds:  # such an input must fit into one batch, of 512 tokens by default
        yield ("--batch-size", "-b"), (str(pool.ctx),)
        yield ("--ubatch-size", "-ub"), (str(pool.ctx),)
    if devices:
        yield ("--n-gpu-layers", "--gpu-layers", "-ngl"), (ALL_LAYERS,)
    else:
        yield ("--device", "-dev"), ("none",)
    for workload in pool.workloads or ():
        if workload in OPTIONS:
            yield OPTIONS[workload], ()
    if pool.tensor_split:
        yield ("--tensor-split", "-ts"), (",".join(f"{share:g}" for share in pool.tensor_split),)


def _named(model: LocalModel) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The name that its answers give as `model`, in place of the path: short, and asking for it leads here again."""
    alias = short_name(model.name)
    if alias and "," not in alias:  # which would be two names
        yield ("--alias", "-a"), (alias,)


def _opposites(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield name.replace("--no-", "--", 1) if name.startswith("--no-") else name.replace("--", "--no-", 1)


def environment(pool: Pool, devices: tuple[int, ...]) -> dict[str, str]:
    """The engine's own variables: the pool's, and which GPUs it sees.

    CUDA numbers GPUs by speed unless told otherwise, and NVML by bus: PCI_BUS_ID makes `devices` mean the same to both.
    """
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {**pool.env, **visible}


def cache_ram_mib(memory_bytes: int) -> int:
    """MiB of old prompts that an engine may keep; llama-server's own default is 8192 for each.

    Depends on nothing but the machine: were it on the number of pools, a new pool would replace the engines of all.
    """
    return min(memory_bytes // (1 << 20) // CACHE_RAM_SHARE, CACHE_RAM_MAX_MIB)


def announced_flags(command: EngineCommand, engine: Engine) -> list[str]:
    """The arguments as the handoff file names them: bounded, since its readers refuse more."""
    arguments = command.argv[len(engine.program.argv) :]
    return [argument for argument in arguments if 0 < len(argument) <= 256][:256]
