"""llama-server's command line, and what its options make of it: a server for completions, embeddings or reranking.

Measured with build 11669 and a LLaMA model. Without --embeddings the server answers embeddings with 501. With it and
pooling `none` (the default of models that name no pooling), the first chat ends the process by SIGSEGV; with pooling
mean, cls or last it both chats and embeds. With --reranking (or pooling `rank`) an embedding is a score, of no use.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from llama_orch.contracts.engines import Workload
from llama_orch.engines.kind import EngineOptions, Launch, LaunchRequest

WORKLOAD_OPTIONS: Mapping[Workload, tuple[str, ...]] = {
    "embedding": ("--embeddings", "--embedding"),
    "rerank": ("--reranking", "--rerank"),
}
"""The spellings of the option that a workload needs."""
POOLING_OPTION = "--pooling"
WORKLOAD_VARIABLES = {"LLAMA_ARG_EMBEDDINGS": "--embeddings", "LLAMA_ARG_RERANKING": "--reranking"}
POOLING_VARIABLE = "LLAMA_ARG_POOLING"
TRUE_VALUES = ("1", "true", "on", "enabled")
BATCH_VARIABLES = {"LLAMA_ARG_BATCH": "--batch-size", "LLAMA_ARG_UBATCH": "--ubatch-size"}

MMPROJ_OPTIONS = {"--mmproj", "-mm", "--mmproj-url", "-mmu", "--no-mmproj", "--mmproj-auto", "--no-mmproj-auto"}
"""Options by which a pool says itself whether there is a projector for images and sound, and which."""
TEMPLATE_OPTIONS = {"--chat-template", "--chat-template-file"}
ALL_LAYERS = "999"
NO_ORIGIN = "http://none.invalid"
"""By default llama-server lets web pages of every origin read its answers; the daemons ask it without an origin."""

Option = tuple[tuple[str, ...], tuple[str, ...]]
"""The names that an option has had, and its values."""


@dataclass(frozen=True)
class ServerMode:
    """What a llama-server was started for. `pooling` is None where the model decides."""

    embeds: bool = False
    reranks: bool = False
    pooling: str | None = None

    @property
    def default_workload(self) -> Workload:
        """The workload if none is declared: an embeddings or reranking server does nothing else."""
        if self.reranks:
            return "rerank"
        return "embedding" if self.embeds else "completion"

    @property
    def safe_workloads(self) -> frozenset[Workload]:
        """The workloads that the server survives and answers with what was asked for."""
        if not self.embeds or self.pooling in ("mean", "cls", "last"):
            return frozenset({self.default_workload, "completion"})
        return frozenset({self.default_workload})


def mode_of_flags(flags: Iterable[str]) -> ServerMode:
    """Return the mode of a llama-server started with `flags`; the last --pooling counts."""
    words = list(flags)
    names = {word.partition("=")[0] for word in words}
    pooling = None
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name == POOLING_OPTION:
            pooling = value if joined else next(iter(words[place + 1 : place + 2]), None)
    reranks = not names.isdisjoint(WORKLOAD_OPTIONS["rerank"])
    embeds = reranks or not names.isdisjoint(WORKLOAD_OPTIONS["embedding"])
    return ServerMode(embeds, reranks or (embeds and pooling == "rank"), "rank" if reranks else pooling)


def mode_of(options: EngineOptions) -> ServerMode:
    """Return the mode that variables, declared workloads and flags make together."""
    env = options.env
    switches = [option for name, option in WORKLOAD_VARIABLES.items() if env.get(name, "").lower() in TRUE_VALUES]
    pooling = [POOLING_OPTION, env[POOLING_VARIABLE]] if POOLING_VARIABLE in env else []
    declared = [WORKLOAD_OPTIONS[workload][0] for workload in options.workloads if workload in WORKLOAD_OPTIONS]
    return mode_of_flags([*switches, *pooling, *declared, *options.flags])


def workloads_by_flags(flags: Iterable[str]) -> list[Workload] | None:
    """Return the workload that `flags` start the server for; None without such a flag."""
    mode = mode_of_flags(flags)
    return [mode.default_workload] if mode.embeds else None


def default_workload(options: EngineOptions) -> Workload:
    """Return the workload of a server whose pool declares none."""
    return mode_of(options).default_workload


def conflicts(options: EngineOptions) -> Iterator[str]:
    """Yield why the declared workloads contradict the flags and variables."""
    declared = options.workloads
    if {"embedding", "rerank"} <= set(declared):
        yield "one llama-server does either embedding or rerank; use two pools"
        return
    mode = mode_of(options)
    for workload in (item for item in get_args(Workload) if item in declared and item not in mode.safe_workloads):
        if workload == "completion":
            yield (
                "completion contradicts --embeddings or --reranking: a chat would crash the engine; remove one of "
                'them, or set a pooling that allows both, as in flags = ["--pooling", "mean"]'
            )
        else:
            yield f"{workload} contradicts the flags, which start the engine for {mode.default_workload}"
    if mode.default_workload not in declared:
        yield f"does not name {mode.default_workload}, which the flags start the engine for"


def arguments(request: LaunchRequest) -> list[str]:
    """Return the command line behind the program, without the pool's flags.

    Options drift between releases, so that each optional one is passed only where --help lists it. A flag or variable
    of the pool replaces the option that would be passed by default. llama-server divides its context among its slots.
    """
    options = request.options
    argv = ["-m", request.model_path, "--host", request.host, "--port", str(request.port)]
    argv += ["-c", str(request.ctx * request.slots), "-np", str(request.slots)]
    given = {flag.partition("=")[0] for flag in options.flags}
    given |= {BATCH_VARIABLES.get(name, name) for name in options.env}
    for names, values in (*_optional(request), *_alias(request)):
        name = next((name for name in names if name in request.known_options), None)
        if name and not given & {*names, *_opposites(names)}:
            argv += [name, *values]
    if not request.devices and "--device" not in request.known_options:
        argv += ["-ngl", "0"]
    return argv


def _optional(request: LaunchRequest) -> Iterator[Option]:
    yield ("--cont-batching", "-cb"), ()
    yield ("--metrics",), ()
    yield ("--slots",), ()
    yield ("--no-webui", "--no-ui"), ()
    yield ("--offline",), ()
    yield ("--cache-ram", "-cram"), (str(request.cache_ram_mib),)
    yield ("--cors-origins",), (NO_ORIGIN,)
    if mode_of(request.options).embeds:  # such an input must fit into one batch, of 512 tokens by default
        yield ("--batch-size", "-b"), (str(request.ctx),)
        yield ("--ubatch-size", "-ub"), (str(request.ctx),)
    if request.devices:
        yield ("--n-gpu-layers", "--gpu-layers", "-ngl"), (ALL_LAYERS,)
    else:
        yield ("--device", "-dev"), ("none",)
    for workload in request.options.workloads:
        if workload in WORKLOAD_OPTIONS:
            yield WORKLOAD_OPTIONS[workload], ()
    given = {flag.partition("=")[0] for flag in request.options.flags}
    if request.mmproj_path is not None and not MMPROJ_OPTIONS & given:
        yield ("--mmproj", "-mm"), (request.mmproj_path,)
    if request.template_path is not None and not TEMPLATE_OPTIONS & given:
        yield ("--chat-template-file",), (request.template_path,)
    if request.tensor_split:
        yield ("--tensor-split", "-ts"), (",".join(f"{share:g}" for share in request.tensor_split),)


def _alias(request: LaunchRequest) -> Iterator[Option]:
    """The name that answers give as `model`, in place of the path: short, and accepted in requests."""
    if request.model_alias and "," not in request.model_alias:  # a comma would make it two names
        yield ("--alias", "-a"), (request.model_alias,)


def _opposites(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield name.replace("--no-", "--", 1) if name.startswith("--no-") else name.replace("--", "--no-", 1)


LAUNCH = Launch(arguments, default_workload, conflicts, loads_gguf=True)
