"""The ollama package against a HOME_PROFILE with a real engine: models, requests, streams, loads and errors."""

import base64
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from ollama import Client

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.openai_home import wait_until_idle

USER = [{"role": "user", "content": "hello world"}]
SHORT: dict[str, Any] = {"num_predict": 6, "temperature": 0, "seed": 1}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home with a fast model that also serves embeddings."""
    directory = tmp_path_factory.mktemp("ollama")
    flags = ("--pooling", "mean")
    with home(directory, llama_server_tar, tiny_model, flags=flags, workloads=("completion", "embedding")) as running:
        running.until(lambda: running.pool()["residency"])
        yield running


@pytest.fixture
def client(machine: Home) -> Iterator[Client]:
    with closing(Client(machine.url)) as opened:
        yield opened


@pytest.fixture
def operator(machine: Home) -> Iterator[Client]:
    """A client on the Unix socket."""
    transport = httpx.HTTPTransport(uds=str(machine.directory / ".runtime/queen-rbee.sock"))
    with closing(Client("http://localhost", transport=transport)) as opened:
        yield opened


def state(machine: Home) -> str:
    return str(machine.pool()["state"])


def png() -> str:
    """Return a picture of one pixel in base64."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(b"\0\0")) + part(b"IEND", b"")
    return base64.b64encode(content).decode()


def test_models_are_listed_and_shown(client: Client, tiny_model: Path):
    models = client.list().models
    names = [each.model for each in models]
    assert {"default", tiny_model.stem} <= set(names)
    assert all(each.digest and len(each.digest) == 64 and each.size == tiny_model.stat().st_size for each in models)
    shown = client.show(f"{tiny_model.stem}:latest")
    assert shown.capabilities == ["completion", "tools", "embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.context_length"] == 1024


def test_loaded_models_have_size_and_lifetime(client: Client, tiny_model: Path):
    client.chat("default", USER, options=SHORT, keep_alive=-1)
    (loaded,) = client.ps().models
    assert loaded.name == tiny_model.stem
    assert loaded.size
    assert (loaded.size_vram, loaded.context_length) == (0, 1024)
    assert loaded.expires_at is not None
    assert loaded.expires_at.year > 2100


def test_version_and_page_satisfy_clients(machine: Home):
    assert machine.ask("GET", "/api/version")[1] == {"version": "0.12.11"}
    with closing(HTTPConnection("127.0.0.1", machine.queen_port, timeout=10)) as connection:
        connection.request("HEAD", "/")
        assert connection.getresponse().status == 200


def test_chat_is_the_same_whole_and_streamed(client: Client):
    whole = client.chat("default", USER, options=SHORT)
    *pieces, last = client.chat("default", USER, options=SHORT, stream=True)
    assert whole.message.content
    assert "".join(piece.message.content or "" for piece in [*pieces, last]) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * len(pieces)
    for end in (whole, last):
        assert (end.model, end.done, end.done_reason, end.eval_count) == ("default", True, "length", 6)
        assert end.prompt_eval_count
        assert all((end.total_duration, end.eval_duration, end.prompt_eval_duration))


def test_chat_equals_that_of_openai_api(client: Client, machine: Home):
    body = {"model": "default", "messages": USER, "max_tokens": 6, "temperature": 0, "seed": 1}
    answer = machine.ask("POST", "/v1/chat/completions", body)[1]
    assert client.chat("default", USER, options=SHORT).message.content == answer["choices"][0]["message"]["content"]


def test_generate_uses_template_unless_raw(client: Client, machine: Home):
    templated = client.generate("default", "hello world", options=SHORT)
    assert templated.response == client.chat("default", USER, options=SHORT).message.content
    raw = client.generate("default", "hello world", options=SHORT, raw=True)
    body = {"model": "default", "prompt": "hello world", "max_tokens": 6, "temperature": 0, "seed": 1}
    assert raw.response == machine.ask("POST", "/v1/completions", body)[1]["choices"][0]["text"]
    assert (raw.done_reason, raw.eval_count) == ("length", 6)
    assert raw.prompt_eval_count
    assert templated.prompt_eval_count
    assert raw.prompt_eval_count < templated.prompt_eval_count
    streamed = client.generate("default", "hello world", options=SHORT, raw=True, stream=True)
    assert "".join(piece.response or "" for piece in streamed) == raw.response


def test_format_makes_json(client: Client):
    options = {**SHORT, "num_predict": 120}
    answer = client.generate("default", "How old?", format=SCHEMA, options=options)
    assert answer.done_reason == "length" or set(json.loads(answer.response or "")) == {"age"}
    assert (answer.response or "").lstrip().startswith("{")
    answer = client.generate("default", "How old?", format="json", options=options)
    assert (answer.response or "").lstrip().startswith("{")


def test_log_probabilities_are_those_of_tokens(client: Client):
    answer = client.chat("default", USER, options=SHORT, logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 6
    assert "".join(each.token for each in answer.logprobs) == answer.message.content
    assert all(each.top_logprobs is not None and len(each.top_logprobs) == 2 for each in answer.logprobs)


def test_tools_and_their_results_are_accepted(client: Client):
    def weather(place: str) -> str:
        """Get the weather.

        Args:
            place: where
        """
        return place

    call = {"function": {"name": "weather", "arguments": {"place": "Bern"}}}
    messages: list[dict[str, Any]] = [
        *USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_name": "weather"},
    ]
    assert client.chat("default", messages, tools=[weather], options=SHORT).done


def test_embeddings_have_length_one(client: Client):
    answer = client.embed("default", ["hello", "world"])
    assert len(answer.embeddings) == 2
    assert sum(number**2 for number in answer.embeddings[0]) == pytest.approx(1, abs=1e-3)
    assert answer.prompt_eval_count
    assert answer.total_duration
    short = client.embed("default", "hello", dimensions=4).embeddings[0]
    assert len(short) == 4
    assert sum(number**2 for number in short) == pytest.approx(1, abs=1e-6)
    (alone,) = client.embed("default", "hello").embeddings
    assert client.embeddings("default", "hello").embedding == pytest.approx(alone, abs=1e-4)


def test_stream_that_is_left_frees_the_slot(client: Client, machine: Home):
    with closing(client.chat("default", USER, options={"num_predict": 400}, stream=True)) as stream:  # type: ignore[type-var]
        next(stream)
    wait_until_idle(machine)
    newest = machine.ask("GET", "/v2/tasks")[1]["tasks"][0]
    assert newest["state"] in ("cancelled", "done")


def test_empty_requests_unload_and_load(client: Client, machine: Home):
    assert client.generate("default", keep_alive=0).done_reason == "unload"
    machine.until(lambda: state(machine) == "unloaded")
    assert client.ps().models == []
    assert client.chat("default", [], keep_alive="1h30m").done_reason == "load"
    pool = machine.pool()
    assert pool["state"] == "ready"
    assert 5300 < pool["unload_in_s"] <= 5400
    assert client.generate("default").done_reason == "load"
    assert client.embed("default", "").embeddings == []


def test_keep_alive_of_zero_unloads_after_answer(client: Client, machine: Home):
    assert client.chat("default", USER, options=SHORT, keep_alive=0).done
    machine.until(lambda: state(machine) == "unloaded")
    again = client.chat("default", USER, options=SHORT, keep_alive="5m")
    assert again.load_duration
    assert again.load_duration > 1_000_000


def test_unknown_model_is_not_found(client: Client):
    for ask in (client.show, client.embed, client.generate, client.chat):
        with pytest.raises(ollama.ResponseError, match='model "gone" not found') as refused:
            ask("gone")
        assert refused.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match='model "gone" not found') as refused:
        list(client.chat("gone", USER, stream=True))
    assert refused.value.status_code == 404


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "template": ({"template": "{{ .Prompt }}"}, "template: a template per request is not supported"),
    "suffix": ({"suffix": "return x"}, "does not support insert"),
    "context": ({"context": [1, 2]}, "context: is not supported"),
    "option": ({"options": {"colour": 1}}, "options.colour: is not an option"),
    "raw": ({"raw": True, "system": "Be kind."}, "raw: does not support system"),
    "image": ({"images": [png()]}, "image"),
    "duration": ({"keep_alive": "soon"}, "keep_alive: must be a duration"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_answer_is_refused(client: Client, name: str):
    fields, words = REFUSED[name]
    with pytest.raises(ollama.ResponseError, match=words) as refused:
        client.generate("default", "hello", **fields)
    assert refused.value.status_code in (400, 500)


def test_pull_of_served_model_succeeds_without_rights(client: Client):
    assert client.pull("default").status == "success"
    assert [line.status for line in client.pull("default", stream=True)] == ["success"]


def test_disk_is_for_operators(client: Client, operator: Client, machine: Home, tiny_model: Path):
    copy = machine.directory / "another.gguf"
    shutil.copy(tiny_model, copy)
    for ask in (client.pull, client.delete):
        with pytest.raises(ollama.ResponseError, match="Unix socket of queen-rbee only") as refused:
            ask(f"file:{copy}")
        assert refused.value.status_code == 403
    lines = [line.status for line in operator.pull(f"file:{copy}", stream=True)]
    assert (lines[0], lines[-1]) == ("pulling manifest", "success")
    assert operator.delete("another").status == "success"
    with pytest.raises(ollama.ResponseError, match='model "another" not found'):
        operator.delete("another")
    with pytest.raises(ollama.ResponseError, match="is used by pool default") as used:
        operator.delete(tiny_model.stem)
    assert used.value.status_code == 409
    with pytest.raises(ollama.ResponseError, match="Name a reference as in"):
        operator.pull("llama3.2")
