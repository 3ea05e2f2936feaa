"""The requests of a benchmark: clients that send one request after the other, each with a prompt of its own."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle, islice

import trio

from llama_orch.service.exit import ExitStatus
from orchctl.bench.figures import Run, Sample, usage_tokens
from orchctl.chat.answer import AnswerChunk, stream_answer
from orchctl.client import QueenClient
from orchctl.errors import CommandError
from orchctl.nurseries import unwrap_groups

WORDS = (
    *("the", "bee", "flies", "over", "a", "field", "of", "clover", "and", "comes"),
    *("home", "with", "what", "it", "found", "before", "the", "sun", "is", "down"),
)
REQUEST_LIMIT_S = 600.0
"""An answer that takes longer counts as an error."""
NO_RETRY = (ExitStatus.NO_PERMISSION, ExitStatus.NO_INPUT, ExitStatus.CONFIG)
"""Errors that every further request would have, too."""


@dataclass(frozen=True)
class Workload:
    """What each request asks for. `prompt_words` is the length of a prompt; a word of WORDS is about one token."""

    model: str
    prompt_words: int
    max_tokens: int
    requests: int


def prompt(number: int, words: int) -> str:
    """Return a prompt that shares no beginning with that of another number, so that no prefix cache helps."""
    first = number % len(WORDS)
    return " ".join((f"{number:x}", *islice(cycle(WORDS), first, first + max(0, words - 1))))


def body(workload: Workload, number: int) -> dict[str, object]:
    """Return the body of a request. Engines that know `ignore_eos` write exactly `max_tokens` tokens."""
    return {
        "model": workload.model,
        "messages": [{"role": "user", "content": prompt(number, workload.prompt_words)}],
        "max_tokens": workload.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


async def warm_up(queen: QueenClient, workload: Workload, numbers: Iterator[int]) -> None:
    """Send one request that is not measured: it loads the model. Raises CommandError if it fails."""
    await _answer(queen, replace(workload, max_tokens=1), next(numbers), trio.current_time())


async def run_clients(
    queen: QueenClient, workload: Workload, clients: int, numbers: Iterator[int], progress: Callable[[int], None]
) -> Run:
    """Send `workload.requests` requests by so many clients, and return what came back.

    A cancelled run closes its connections, which cancels the requests. Raises CommandError for an error that every
    further request would have, too.
    """
    run = Run(clients)
    left = iter(range(workload.requests))
    began = trio.current_time()

    async def client() -> None:
        for _request in left:
            try:
                run.samples.append(await _answer(queen, workload, next(numbers), began))
            except CommandError as error:
                if error.status in NO_RETRY:
                    raise
                run.fail(error.message)
            progress(len(run.samples) + sum(run.errors.values()))

    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            for _client in range(clients):
                nursery.start_soon(client)
    run.seconds = trio.current_time() - began
    return run


async def _answer(queen: QueenClient, workload: Workload, number: int, began: float) -> Sample:
    """Send one request over a connection of its own and read its answer. Raises CommandError."""
    sent_at, first_at = trio.current_time(), math.nan
    last = AnswerChunk()

    def take(chunk: AnswerChunk) -> None:
        nonlocal first_at, last
        if math.isnan(first_at) and any(each.delta.content or each.delta.reasoning_content for each in chunk.choices):
            first_at = trio.current_time()
        last = chunk if chunk.usage else last

    with trio.move_on_after(REQUEST_LIMIT_S) as scope:
        await stream_answer(queen, body(workload, number), {}, take)
    if scope.cancelled_caught:
        raise CommandError(f"no complete answer within {REQUEST_LIMIT_S:g} s", "", ExitStatus.TEMPORARY)
    ended_at = trio.current_time()
    return Sample(
        sent_at - began,
        None if math.isnan(first_at) else first_at - began,
        ended_at - began,
        usage_tokens(last.usage, "prompt_tokens"),
        usage_tokens(last.usage, "completion_tokens"),
    )


def numbers() -> Iterator[int]:
    """Yield the numbers of prompts, different in each benchmark."""
    import secrets

    return count(secrets.randbelow(1 << 40))
