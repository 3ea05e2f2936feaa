"""Shared by the tests with the openai package: a client for a home, and the state of its engine and tasks."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from openai import OpenAI

from tests.integration.home import Home

CHAT: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "hello world"}],
    "max_tokens": 8,
    "temperature": 0,
    "seed": 1,
}
TIMEOUT_S = 10.0


def client_of(running: Home, **options: Any) -> OpenAI:
    """Return a client without automatic retries."""
    return OpenAI(base_url=f"{running.url}/v1", api_key="none", **{"max_retries": 0, **options})


def wait_until(condition: Callable[[], Any]) -> Any:
    """Poll `condition` and return its first true result. Fails after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"condition not met within {TIMEOUT_S:g} s"
        time.sleep(0.005)
    return found


def engine_url(running: Home) -> str:
    url: str = running.pool()["replicas"][0]["url"]
    return url


def busy_slots(running: Home) -> int:
    """Return the number of slots that the engine reports as processing."""
    with urllib.request.urlopen(f"{engine_url(running)}/slots", timeout=10) as answer:
        return sum(slot["is_processing"] for slot in json.load(answer))


def tasks_in_state(running: Home, state: str) -> list[dict[str, Any]]:
    _status, page = running.ask("GET", f"/v2/tasks?state={state}")
    found: list[dict[str, Any]] = page["tasks"]
    return found


def wait_until_idle(running: Home) -> None:
    """Wait until no task is queued or running in the queen and no slot is busy in the engine."""

    def idle() -> bool:
        active = tasks_in_state(running, "queued") or tasks_in_state(running, "running")
        return not active and not busy_slots(running)

    wait_until(idle)
