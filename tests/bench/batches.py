"""Kill queen-rbee while it works through a batch: each of 10,000 requests must be answered once.

The engine is an imitation that answers at once, so that queen-rbee is what is measured.
"""

import argparse
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence

from openai import OpenAI

from tests.bench.gateway.engine import TOKENS, engine
from tests.bench.queen import MODEL, Queen, killed_and_started, pool, pool_manager
from tests.bench.queen import queen as running_queen

SLOTS = 32


def lines(count: int) -> bytes:
    body = {"model": MODEL, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "What does the queen do?"}]}
    rows = (
        {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(count)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def run(count: int, kills: int, seed: int) -> None:
    """Print what came of a batch of `count` requests and `kills` kills at random moments."""
    chance = random.Random(seed)
    with engine(1) as url, pool_manager(pool(url, SLOTS)) as manager, running_queen(pool(url, SLOTS)) as first:
        environ = {"ORCHD_POOL_MANAGERS": manager}
        queen: Queen = first
        client = OpenAI(base_url=f"http://127.0.0.1:{queen.port}/v1", api_key="none", max_retries=5)
        file = client.files.create(file=("requests.jsonl", lines(count)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        began, killed = time.monotonic(), 0
        while (now := client.batches.retrieve(batch.id)).status not in ("completed", "failed"):
            if killed < kills and now.request_counts and now.request_counts.completed >= count * killed // (kills + 1):
                time.sleep(chance.uniform(0, 0.3))
                queen = killed_and_started(queen, **environ)
                killed += 1
            time.sleep(0.05)
        took = time.monotonic() - began
        answered = Counter(
            json.loads(line)["custom_id"] for line in client.files.content(now.output_file_id or "").text.splitlines()
        )
        print(f"{count} requests, {killed} kills: {now.status}, {now.request_counts}")
        print(f"  answered: {len(answered)}, more than once: {sum(number > 1 for number in answered.values())}")
        print(f"  {took:.1f} s, {count / took:.0f} requests/s, restarts included")
        if queen is not first:
            queen.process.send_signal(signal.SIGTERM)
            queen.process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.batches", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    run(options.requests, options.kills, options.seed)


if __name__ == "__main__":
    main()
