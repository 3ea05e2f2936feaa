"""What the tests with OpenAI's own package share: a client of a home, and what the home's engine is doing."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from openai import OpenAI

from tests.integration.home import Home

LEAST: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "hello world"}],
    "max_tokens": 8,
    "temperature": 0,
    "seed": 1,
}
SOON_S = 10.0


def client_of(running: Home, **options: Any) -> OpenAI:
    """A client that does not try again by itself."""
    return OpenAI(base_url=f"{running.url}/v1", api_key="none", **{"max_retries": 0, **options})


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` returns, once it is true."""
    deadline = time.monotonic() + SOON_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)
    return found


def engine_url(running: Home) -> str:
    """The engine itself."""
    url: str = running.pool()["replicas"][0]["url"]
    return url


def busy(running: Home) -> int:
    """Slots that the engine itself says are at work."""
    with urllib.request.urlopen(f"{engine_url(running)}/slots", timeout=10) as answer:
        return sum(slot["is_processing"] for slot in json.load(answer))


def tasks(running: Home, state: str) -> list[dict[str, Any]]:
    """The queen's tasks that are in `state`."""
    _status, page = running.ask("GET", f"/v2/tasks?state={state}")
    found: list[dict[str, Any]] = page["tasks"]
    return found


def at_rest(running: Home) -> None:
    """Return once nothing waits and nothing runs, here and at the engine."""
    until(lambda: not tasks(running, "queued") and not tasks(running, "running") and not busy(running))
