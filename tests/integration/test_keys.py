"""Keys of users against a real queen-rbee, with the openai and anthropic packages; the engine is imitated."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from llama_orch.contracts.keys import KeySpec
from llama_orch.keys.editing import table
from llama_orch.keys.secret_keys import digest, new_secret
from tests.bench.queen import Queen, pool, queen
from tests.bench.stand_in import stand_in_process
from tests.integration.home import free_port

FLEET = "the-token-of-the-whole-fleet"
TIMEOUT_S = 20.0
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@dataclass
class Keyed:
    """A queen with a token and a file of keys."""

    queen: Queen
    path: Path
    secrets: dict[str, str]
    metrics_port: int

    def write(self, *specs: KeySpec) -> None:
        """Replace the file, and reload it as SIGHUP does. Wait until the last key is known."""
        self.path.write_text("\n".join(table(spec) for spec in specs))
        self.queen.process.send_signal(signal.SIGHUP)
        names = [spec.name for spec in specs]
        wait_until(lambda: [key["key"] for key in self.ask("/v2/usage")[1]["keys"]] == names)

    def spec(self, name: str, **limits: Any) -> KeySpec:
        secret = self.secrets.setdefault(name, new_secret())
        return KeySpec(name=name, sha256=digest(secret), **limits)

    def ask(self, path: str, method: str = "GET", key: str | None = None, body: object = None) -> tuple[int, Any]:
        token = FLEET if key is None else self.secrets[key]
        return Queen(self.queen.process, self.queen.directory, self.queen.port, token).ask(method, path, body)

    def openai(self, secret: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.queen.port}/v1", api_key=secret, max_retries=0)

    def anthropic(self, secret: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=f"http://127.0.0.1:{self.queen.port}", api_key=secret, max_retries=0)

    def chat(self, secret: str, model: str = "tiny", **headers: str) -> Any:
        with self.openai(secret) as client:
            return client.chat.completions.create(
                model=model, messages=MESSAGES, max_tokens=4, extra_headers=headers or None
            )

    def message(self, secret: str, model: str = "tiny") -> Any:
        with self.anthropic(secret) as client:
            return client.messages.create(model=model, messages=MESSAGES, max_tokens=4)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"condition not met within {TIMEOUT_S:g} s"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    port = free_port()
    environ = {"ORCHESTRATORD_KEYS_FILE": str(path), "LLORCH_API_TOKEN": FLEET, "RUST_LOG": "info"}
    environ["PROMETHEUS_METRICS_PORT"] = str(port)
    with stand_in_process(0.001) as url, queen(pool(url, 4), **environ) as running:
        yield Keyed(running, path, {}, port)


def test_key_in_file_opens_and_unknown_one_is_refused(keyed: Keyed) -> None:
    secret = new_secret()
    with pytest.raises(openai.AuthenticationError) as refused:
        keyed.chat(secret)
    assert refused.value.code == "BAD_TOKEN"
    keyed.secrets["alice"] = secret
    keyed.write(keyed.spec("alice"))
    assert keyed.chat(secret).usage.completion_tokens == 4
    assert keyed.message(secret).usage.output_tokens == 4
    assert keyed.chat(FLEET).usage.completion_tokens == 4
    with pytest.raises(anthropic.AuthenticationError):
        keyed.message(new_secret())
    keyed.write()
    with pytest.raises(openai.AuthenticationError):
        keyed.chat(secret)


def test_expired_key_is_told_so_by_both_packages(keyed: Keyed) -> None:
    keyed.write(keyed.spec("late", expires=datetime.now(UTC) - timedelta(days=1)))
    with pytest.raises(openai.AuthenticationError, match="the key late expired at") as first:
        keyed.chat(keyed.secrets["late"])
    assert first.value.code == "KEY_EXPIRED"
    with pytest.raises(anthropic.AuthenticationError, match="the key late expired at"):
        keyed.message(keyed.secrets["late"])


def test_forbidden_model_and_endpoint_are_permission_errors(keyed: Keyed) -> None:
    keyed.write(keyed.spec("other", models=("large",)), keyed.spec("talker", endpoints=("messages",)))
    with pytest.raises(openai.PermissionDeniedError, match="does not permit the model 'tiny'") as refused:
        keyed.chat(keyed.secrets["other"])
    assert (refused.value.code, refused.value.param) == ("KEY_FORBIDDEN", "model")
    with pytest.raises(anthropic.PermissionDeniedError, match="It permits: large"):
        keyed.message(keyed.secrets["other"])
    with pytest.raises(openai.PermissionDeniedError, match="does not permit the endpoint chat"):
        keyed.chat(keyed.secrets["talker"])
    assert keyed.message(keyed.secrets["talker"]).usage.output_tokens == 4
    with keyed.openai(keyed.secrets["other"]) as client:
        assert client.models.list().data == []


def test_packages_that_retry_at_the_given_time_succeed(keyed: Keyed) -> None:
    """One task at a time: the package that is refused waits as it is told, and is served then."""
    keyed.write(keyed.spec("patient", requests_per_minute=60, concurrency=1))
    secret = keyed.secrets["patient"]
    with ThreadPoolExecutor(2) as threads, keyed.openai(secret) as one, keyed.anthropic(secret) as other:
        chats, messages = one.with_options(max_retries=10).chat, other.with_options(max_retries=10).messages
        first = threads.submit(chats.completions.create, model="tiny", messages=MESSAGES, max_tokens=1000)
        second = threads.submit(messages.create, model="tiny", messages=MESSAGES, max_tokens=1000)
        usage = first.result().usage
        assert usage
        assert usage.completion_tokens == 1000
        assert second.result().usage.output_tokens == 1000
    (counts,) = keyed.ask("/v2/usage")[1]["keys"]
    assert counts["refused"] > 0


def test_limit_is_a_rate_limit_error_with_its_time(keyed: Keyed) -> None:
    keyed.write(keyed.spec("slow", requests_per_minute=2), keyed.spec("poor", tokens_total=5))
    secret = keyed.secrets["slow"]
    keyed.chat(secret)
    keyed.message(secret)
    with pytest.raises(openai.RateLimitError) as first:
        keyed.chat(secret)
    assert first.value.code == "RATE_LIMITED"
    assert 1 <= int(first.value.response.headers["retry-after"]) <= 30
    with pytest.raises(anthropic.RateLimitError) as second:
        keyed.message(secret)
    assert second.value.response.headers["x-should-retry"] == "true"
    keyed.chat(keyed.secrets["poor"])
    with pytest.raises(openai.RateLimitError) as third:
        keyed.chat(keyed.secrets["poor"])
    assert third.value.code == "BUDGET_EXHAUSTED"
    assert "retry-after" not in third.value.response.headers


def test_tasks_and_operators_paths_of_a_key(keyed: Keyed) -> None:
    keyed.write(keyed.spec("alice"), keyed.spec("bob"))
    status, accepted = keyed.ask("/v2/tasks", "POST", "alice", {"prompt": "x", "max_tokens": 4})
    assert status == 202
    path = f"/v2/tasks/{accepted['task_id']}"
    assert [keyed.ask(path, key=name)[0] for name in ("alice", "bob", None)] == [200, 404, 200]
    assert keyed.ask("/v2/pools", key="alice")[0] == 403
    assert keyed.ask("/v2/pools")[0] == 200
    assert [each["key"] for each in keyed.ask("/v2/usage", key="bob")[1]["keys"]] == ["bob"]


def test_invalid_file_changes_nothing_and_is_logged(keyed: Keyed) -> None:
    keyed.write(keyed.spec("alice"))
    keyed.path.write_text('[[keys]]\nname = "alice"\n')
    keyed.queen.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "keys.toml:1: keys[0].sha256: is required" in keyed.queen.log)
    assert keyed.chat(keyed.secrets["alice"]).usage.completion_tokens == 4


def test_use_is_in_metrics_and_log_and_secrets_are_not(keyed: Keyed) -> None:
    keyed.write(keyed.spec("counted"))
    keyed.chat(keyed.secrets["counted"])
    wait_until(lambda: '"key": "counted"' in keyed.queen.log)
    _status, text = Queen(keyed.queen.process, keyed.queen.directory, keyed.metrics_port).ask("GET", "/metrics")
    assert 'orchd_key_requests_total{key="counted"} 1.0' in text
    assert 'orchd_key_tokens_out_total{key="counted"} 4.0' in text
    for secret in keyed.secrets.values():
        assert secret not in keyed.queen.log + text
