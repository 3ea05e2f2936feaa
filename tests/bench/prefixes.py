"""Routing by prompts: 64 conversations of 8 turns without session ids on four real engines, against round-robin.

The conversations share four system prompts. Each turn sends the whole conversation, as OpenAI's clients do. Counted are
the prompt tokens that the engines found in their caches, and the time to the first token. The engines start anew for
each strategy; their model is small, and its prompts are long enough for their computation to be most of the time.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection

from llama_orch.contracts.pools import ReplicaStatus
from tests.bench.figures import percentile, spread
from tests.bench.queen import MODEL, Queen, pool, queen
from tests.engines.llama_server import llama_server_directory
from tests.engines.running import running_engine
from tests.engines.tiny_model import WORDS, Shape, tiny_model

REPLICAS, SLOTS, CTX = 4, 16, 2048
CONVERSATIONS, TURNS, CLIENTS, SYSTEM_PROMPTS = 64, 8, 4, 4
SYSTEM_WORDS, TURN_WORDS, ANSWER_TOKENS = 500, 60, 4
SHAPE = Shape(layers=4, embd=256, ctx=CTX)
FLAGS = ("--threads", "1", "--slot-prompt-similarity", "0.85")
"""By default llama-server gives the slot of a conversation to any other that shares a tenth of its prompt."""


@dataclass
class Answers:
    """What the clients saw."""

    first_token_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def words(count: int, seed: str) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choices(WORDS.split(), k=count))


@contextmanager
def fleet(**environ: str) -> Iterator[Queen]:
    """Run four engines and a queen that knows them as replicas of one pool."""
    server, model = llama_server_directory() / "bin/llama-server", tiny_model(SHAPE)
    with ExitStack() as stack:
        urls = [
            stack.enter_context(running_engine(server, model, slots=SLOTS, ctx=CTX, flags=FLAGS)).url
            for _replica in range(REPLICAS)
        ]
        replicas = [
            ReplicaStatus(replica_id=f"r{n}", url=url, ready=True, slots_total=SLOTS, slots_free=SLOTS)
            for n, url in enumerate(urls)
        ]
        known = pool("", REPLICAS * SLOTS, CTX).model_copy(update={"replicas": replicas})
        yield stack.enter_context(queen(known, **environ))


def converse(port: int, numbers: range, answers: Answers) -> None:
    """Hold some conversations, a turn of each in turn."""
    said = {
        number: [{"role": "system", "content": words(SYSTEM_WORDS, f"system {number % SYSTEM_PROMPTS}")}]
        for number in numbers
    }
    for turn in range(TURNS):
        for number, messages in said.items():
            messages.append({"role": "user", "content": words(TURN_WORDS, f"{number} {turn}")})
            messages.append({"role": "assistant", "content": ask(port, messages, answers)})


def ask(port: int, messages: list[dict[str, str]], answers: Answers) -> str:
    """Stream one answer; return its text."""
    body = {"model": MODEL, "messages": messages, "stream": True, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    connection, begun = HTTPConnection("127.0.0.1", port, timeout=120), time.monotonic()
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body | {"stream_options": {"include_usage": True}}),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    answer, text, first, usage = connection.getresponse(), "", 0.0, None
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event.get("choices", ()):
            text += choice["delta"].get("content") or ""
            first = first or (time.monotonic() - begun if text else 0.0)
    connection.close()
    with answers.lock:
        if answer.status != 200 or usage is None:
            answers.failed += 1
            return text
        answers.first_token_s.append(first)
        answers.prompt_tokens += usage["prompt_tokens"]
        answers.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return text


def measure(**environ: str) -> Answers:
    """Hold all conversations with one strategy."""
    answers = Answers()
    with fleet(ORCHD_ADMISSION_CAPACITY="1000", **environ) as running:
        each = CONVERSATIONS // CLIENTS
        clients = [
            threading.Thread(target=converse, args=(running.port, range(each * n, each * (n + 1)), answers))
            for n in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    return answers


def main() -> None:
    """Run the benchmark with round-robin, then with routing by prompts."""
    print(f"prefixes: {CONVERSATIONS} conversations of {TURNS} turns, {CLIENTS} clients, {REPLICAS} llama-servers")
    plain = measure(ORCHESTRATORD_PREFIX_ROUTING="false")
    routed = measure(ORCHESTRATORD_PREFIX_ROUTING="true")
    for name, answers in (("round-robin", plain), ("by prompts", routed)):
        share = answers.cached_tokens / answers.prompt_tokens
        print(
            f"  {name}: {answers.cached_tokens} of {answers.prompt_tokens} prompt tokens cached ({share:.0%}); ", end=""
        )
        print(f"first token {spread(answers.first_token_s)}; {answers.failed} failed")
    ratio = percentile(routed.first_token_s, 0.5) / percentile(plain.first_token_s, 0.5)
    print(f"  cached tokens {routed.cached_tokens / plain.cached_tokens:.2f} times, first token p50 {ratio:.2f} times")


if __name__ == "__main__":
    main()
