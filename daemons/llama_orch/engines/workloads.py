"""What an engine does: completions, embeddings or reranking, by the options it was started with. Pure.

Measured with llama-server build 11669 (a LLaMA model): without --embeddings it answers embeddings with 501. With it and
pooling `none` (the default of models that name no pooling), the first chat ends the process by SIGSEGV; with pooling
mean, cls or last it both chats and embeds. With --reranking (or pooling `rank`) an embedding is a score, of no use.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from llama_orch.contracts.engines import Workload
from llama_orch.contracts.handoff import Handoff

ALL: tuple[Workload, ...] = get_args(Workload)
EMBEDDING_FLAGS = frozenset({"--embedding", "--embeddings"})
RERANKING_FLAGS = frozenset({"--rerank", "--reranking"})
POOLING_FLAG = "--pooling"


@dataclass(frozen=True)
class Mode:
    """The options of a llama-server that decide what it does. `pooling` is None where the model decides."""

    embeds: bool = False
    reranks: bool = False
    pooling: str | None = None

    @property
    def usual(self) -> Workload:
        """The workload of an engine that declares none: an embeddings or reranking engine does nothing else."""
        if self.reranks:
            return "rerank"
        return "embedding" if self.embeds else "completion"

    @property
    def possible(self) -> frozenset[Workload]:
        """The workloads that such an engine survives and answers with what was asked for."""
        if not self.embeds or self.pooling in ("mean", "cls", "last"):
            return frozenset({self.usual, "completion"})
        return frozenset({self.usual})


def mode_of(flags: Iterable[str]) -> Mode:
    """The mode of a llama-server that is started with `flags`; the last --pooling counts."""
    words = list(flags)
    names = {word.partition("=")[0] for word in words}
    pooling = None
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name == POOLING_FLAG:
            pooling = value if joined else next(iter(words[place + 1 : place + 2]), None)
    reranks = bool(names & RERANKING_FLAGS)
    embeds = reranks or bool(names & EMBEDDING_FLAGS)
    return Mode(embeds, reranks or (embeds and pooling == "rank"), "rank" if reranks else pooling)


def announced(handoff: Handoff) -> Sequence[Workload] | None:
    """The workloads of an engine by its handoff file: those it names, or what the flags say. None where it does not
    tell: then the engine must be asked, and without an answer it counts as doing all that its kind can."""
    if handoff.workloads:
        return handoff.workloads
    mode = mode_of(handoff.flags)
    return [mode.usual] if handoff.engine == "llamacpp" and mode.embeds else None


def union(workloads: Iterable[Sequence[Workload] | None]) -> list[Workload] | None:
    """What several engines do together; None where one of them, or all, may do anything."""
    known = list(workloads)
    if not known or any(some is None for some in known):
        return None
    return [workload for workload in ALL if any(workload in (some or ()) for some in known)]
