"""A prompt as a chain of hashes, one per block: prompts that begin alike have the same first hashes.

An engine computes a prompt's beginning only once if it still has it in its KV cache. What counts is the text after the
engine's chat template, which the queen does not know; the same JSON in the same order gives the same text, so hashing
the values in the client's order suffices. Tools come first: templates put them into the system prompt. Blocks end with
messages, so that the end of a turn is the end of a block in the next turn's prompt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage

FIRST_BLOCK = 512
"""Most characters of the first blocks: about 128 tokens."""
BLOCKS_PER_SIZE = 64
"""So many blocks have one limit, the next ones four times that limit: long prompts too have few blocks."""
BLOCKS_LIMIT = 4 * BLOCKS_PER_SIZE
DEPTH_LIMIT = 32
"""Levels of nested JSON that are looked at."""
CACHE_KEY = "prompt_cache_key"
"""OpenAI's hint: requests with the same one probably have a common beginning."""


@dataclass(frozen=True)
class Prompt:
    """What is known of a prompt's beginning.

    Each hash of `chain` covers all text up to the end of its block, where `ends` is the number of characters so far.
    Hashes differ from process to process. `hint` is the hash of the client's own key, if it gave one.
    """

    chain: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    hint: int | None = None

    @property
    def length(self) -> int:
        """Characters that the chain covers."""
        return self.ends[-1] if self.ends else 0


UNKNOWN = Prompt()


def prompt_of(request: TaskRequest, passage: Passage | None) -> Prompt:
    """Return a task's prompt: UNKNOWN if its engine keeps no KV cache for it."""
    if passage is None:
        return _full_blocks_of(request.prompt or "")
    key = passage.body.get(CACHE_KEY)
    hint = hash((CACHE_KEY, key)) if isinstance(key, str) else None
    if passage.endpoint == "completions":
        return _full_blocks_of(_text(passage.body.get("prompt")), hint)
    if passage.endpoint == "chat":
        messages = passage.body.get("messages")
        parts = [passage.body.get("tools"), *(messages if isinstance(messages, list) else ())]
        return blocks_of(map(_text, parts), hint)
    return UNKNOWN


def _full_blocks_of(text: str, hint: int | None = None) -> Prompt:
    """Return the chain of a text that the next prompt may continue anywhere: without what does not fill a block."""
    return blocks_of([text[: len(text) - len(text) % FIRST_BLOCK]], hint)


def blocks_of(texts: Iterable[str], hint: int | None = None) -> Prompt:
    """Return the chain of `texts`. A block ends with a text, or when it is full.

    From the second size on, a block must be longer than the first blocks before it may end with a text.
    """
    chain: list[int] = []
    ends: list[int] = []
    block, covered = "", 0
    for text in texts:
        start = 0
        while start < len(text):
            size = FIRST_BLOCK << 2 * (len(chain) // BLOCKS_PER_SIZE)
            taken = text[start : start + size - len(block)]
            start += len(taken)
            block += taken
            full = len(block) == size
            if full or (start == len(text) and (len(chain) < BLOCKS_PER_SIZE or len(block) > FIRST_BLOCK)):
                covered += len(block)
                chain.append(hash((chain[-1] if chain else 0, block)))
                ends.append(covered)
                block = ""
                if len(chain) == BLOCKS_LIMIT:
                    return Prompt(tuple(chain), tuple(ends), hint)
    return Prompt(tuple(chain), tuple(ends), hint)


def _text(value: JsonValue) -> str:
    return "".join(_pieces(value, DEPTH_LIMIT))


def _pieces(value: JsonValue, depth: int) -> Iterator[str]:
    """Yield keys and values in their order, each value followed by a separator."""
    if isinstance(value, str):
        yield value
        yield "\0"
    elif isinstance(value, Mapping) and depth:
        for key, inner in value.items():
            yield key
            yield from _pieces(inner, depth - 1)
    elif isinstance(value, Sequence) and depth:
        for inner in value:
            yield from _pieces(inner, depth - 1)
    elif isinstance(value, int | float):
        yield f"{value}\0"
