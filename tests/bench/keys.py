"""Fair shares: 50 keys under four times the load that the engine can take, a light user beside a heavy one, and the CPU
of a request with and without keys.

The engine is imitated: it sends tokens at a fixed rate. Every fifth key asks for answers that are three times as long.
`--seconds` sets the duration of the overload. `--only` selects one part; `PYTHONPATH=OTHER_TREE/daemons` measures the
queen-rbee of another tree, which need not know keys for `--only cpu`.
"""

import argparse
import random
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import trio

from llama_orch.contracts.keys import KeySpec
from llama_orch.keys.editing import table
from llama_orch.keys.secret_keys import digest, new_secret
from tests.bench.figures import percentile
from tests.bench.queen import MODEL, Queen, pool, queen
from tests.bench.stand_in import stand_in_process
from tests.bench.wire import Broken, Wire, encoded

KEYS = 50
WEIGHTS = (1, 2, 3, 4, 5)
SLOTS = 8
INTERVAL_S = 0.02
TOKENS = 10
LONG = 3
TIMES = 4
SECONDS = 90.0
WARM_UP_S = 8.0
CAPACITY = 400
HEAVY_TASKS = 1000
LIGHT_TASKS = 20
CPU_REQUESTS = 1500
LIMIT = 0.1
CHAT = "/v1/chat/completions"


def key_name(number: int) -> str:
    return f"key-{number:02d}"


def specs(secrets: list[str]) -> list[KeySpec]:
    return [
        KeySpec(name=key_name(number), sha256=digest(secret), weight=WEIGHTS[number % len(WEIGHTS)])
        for number, secret in enumerate(secrets)
    ]


def keys_file(directory: Path, keys: list[KeySpec]) -> Path:
    path = directory / "keys.toml"
    path.write_text("\n".join(map(table, keys)))
    return path


def tokens_of(number: int) -> int:
    """Return the length of the answers that a key asks for. Independent of its weight."""
    return TOKENS * (LONG if number // len(WEIGHTS) % 5 == 0 else 1)


def chat(tokens: int, secret: str | None, words: str = "hello") -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": tokens}
    return encoded("POST", CHAT, body, {"Authorization": f"Bearer {secret}"} if secret else None)


async def send(port: int, request: bytes) -> int:
    """Return the status of the response, 0 if the connection broke."""
    try:
        with await Wire.open(port) as wire:
            return (await wire.ask(request)).status
    except (Broken, OSError):
        return 0


def used(running: Queen) -> dict[str, int]:
    """Return the tokens that each key has used."""
    return {key["key"]: key["tokens_in"] + key["tokens_out"] for key in running.ask("GET", "/v2/usage")[1]["keys"]}


async def overload(running: Queen, secrets: list[str], seconds: float) -> tuple[dict[str, int], Counter[int]]:
    """Let all keys send equally often, four times as much as the engine takes. Return what each got, and the statuses.

    The first WARM_UP_S seconds fill the queue and do not count.
    """
    mean_s = statistics.mean(tokens_of(number) for number in range(KEYS)) * INTERVAL_S
    rate, statuses = TIMES * SLOTS / mean_s, Counter[int]()

    async def one(number: int) -> None:
        statuses[await send(running.port, chat(tokens_of(number), secrets[number]))] += 1

    async with trio.open_nursery() as nursery:
        begun, sent, before = trio.current_time(), 0, None
        while (now := trio.current_time() - begun) < WARM_UP_S + seconds:
            if before is None and now >= WARM_UP_S:
                before = await trio.to_thread.run_sync(used, running)
            while sent < now * rate:
                nursery.start_soon(one, sent % KEYS)
                sent += 1
            await trio.sleep(0.005)
        after = await trio.to_thread.run_sync(used, running)
        nursery.cancel_scope.cancel()
    assert before is not None
    return {name: after[name] - before[name] for name in after}, statuses


def shares(seconds: float, policy: str) -> None:
    secrets = [new_secret() for _ in range(KEYS)]
    keys = specs(secrets)
    with tempfile.TemporaryDirectory() as directory:
        environ = {
            "ORCHESTRATORD_KEYS_FILE": str(keys_file(Path(directory), keys)),
            "ORCHD_ADMISSION_CAPACITY": str(CAPACITY),
            "ORCHD_ADMISSION_POLICY": policy,
            "RUST_LOG": "error",
        }
        with stand_in_process(INTERVAL_S) as url, queen(pool(url, SLOTS), **environ) as running:
            got, statuses = trio.run(overload, running, secrets, seconds)
    total, weights = sum(got.values()), sum(key.weight for key in keys)
    deviations = {key.name: got[key.name] / total / (key.weight / weights) - 1 for key in keys}
    by_weight: dict[int, list[float]] = defaultdict(list)
    for key in keys:
        by_weight[key.weight].append(deviations[key.name])
    print(f"{KEYS} keys, {TIMES} times the load, {policy}, {SLOTS} slots, {seconds:g} s: {total} tokens")
    for weight, found in sorted(by_weight.items()):
        worst = max(found, key=abs)
        print(f"  weight {weight}: {statistics.mean(found):+.1%} of its share on average, {worst:+.1%} at worst")
    inside = sum(abs(each) <= LIMIT for each in deviations.values())
    print(f"  within {LIMIT:.0%} of their shares: {inside} of {KEYS}; statuses {dict(statuses)}")


async def light_waits(running: Queen, heavy: str | None, light: str | None) -> list[float]:
    """Queue HEAVY_TASKS tasks of one key, then let another send one at a time. Return how long each of these took."""
    body = {"prompt": "hello", "max_tokens": TOKENS}
    headers = {"Authorization": f"Bearer {heavy}"} if heavy else None
    if heavy:
        with await Wire.open(running.port) as wire:
            for _ in range(HEAVY_TASKS):
                answer = await wire.ask(encoded("POST", "/v2/tasks", body, headers))
                assert answer.status == 202, answer
    found = []
    for _ in range(LIGHT_TASKS):
        begun = trio.current_time()
        assert await send(running.port, chat(TOKENS, light)) == 200
        found.append(trio.current_time() - begun)
        await trio.sleep(random.random() * 0.1)
    return found


def light_beside_heavy() -> None:
    secrets = [new_secret() for _ in range(2)]
    with tempfile.TemporaryDirectory() as directory:
        path = keys_file(Path(directory), [key.model_copy(update={"weight": 1}) for key in specs(secrets)])
        environ = {"ORCHESTRATORD_KEYS_FILE": str(path), "ORCHD_ADMISSION_CAPACITY": "2000", "RUST_LOG": "error"}
        with stand_in_process(INTERVAL_S) as url, queen(pool(url, SLOTS), **environ) as running:
            alone = trio.run(light_waits, running, None, secrets[1])
            beside = trio.run(light_waits, running, secrets[0], secrets[1])
    task_s = TOKENS * INTERVAL_S
    print(f"a light user beside {HEAVY_TASKS} queued tasks of another ({SLOTS} slots, {task_s:g} s a task)")
    for words, found in (("alone", alone), ("beside the heavy one", beside)):
        print(f"  {words}: median {statistics.median(found):.3f} s, p90 {percentile(found, 0.9):.3f} s, ", end="")
        print(f"first {found[0]:.3f} s, for the whole answer")
    print(f"  in order of arrival it would have waited {HEAVY_TASKS / SLOTS * task_s:.1f} s")


async def repeat(running: Queen, secret: str | None, number: int) -> None:
    request = chat(2, secret)
    with await Wire.open(running.port) as wire:
        for _ in range(number):
            assert (await wire.ask(request)).status == 200


def cpu(with_keys: bool) -> None:
    """Print the CPU of a plain /v1 request: without a keys file, and with one and a key."""
    secret = new_secret()
    with tempfile.TemporaryDirectory() as directory, stand_in_process(0.0) as url:
        for words, token in (("no keys", None), *((("with a key", secret),) if with_keys else ())):
            keys = [KeySpec(name="k", sha256=digest(secret), tokens_per_minute=10**9)]
            environ = {"ORCHESTRATORD_KEYS_FILE": str(keys_file(Path(directory), keys))} if token else {}
            with queen(pool(url, SLOTS), RUST_LOG="error", **environ) as running:
                trio.run(repeat, running, token, CPU_REQUESTS // 3)
                before = running.cost.cpu_s
                trio.run(repeat, running, token, CPU_REQUESTS)
                print(f"  {words}: {1e6 * (running.cost.cpu_s - before) / CPU_REQUESTS:.0f} µs of CPU a request")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", choices=["shares", "light", "cpu", "cpu-without"])
    options = parser.parse_args(arguments)
    if options.only in (None, "shares"):
        for policy in ("drop-lru", "reject-new"):
            shares(options.seconds, policy)
    if options.only in (None, "light"):
        light_beside_heavy()
    if options.only in (None, "cpu", "cpu-without"):
        cpu(options.only != "cpu-without")


if __name__ == "__main__":
    main()
