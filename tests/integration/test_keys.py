"""Keys of users against a real queen-rbee, with the openai and anthropic packages; the engine is imitated."""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

FLEET = "the-token-of-the-whole-fleet"
TIMEOUT_S = 20.0
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@dataclass
class Keyed:
    """A queen with a token and a file of keys."""

    queen: Queen
    path: Path
    secrets: dict[str, str]

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
    environ = {"ORCHESTRATORD_KEYS_FILE": str(path), "LLORCH_API_TOKEN": FLEET, "RUST_LOG": "info"}
    with stand_in_process(0.001) as url, queen(pool(url, 4), **environ) as running:
        yield Keyed(running, path, {})


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
