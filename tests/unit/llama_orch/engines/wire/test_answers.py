"""Parsing of engines' answers: every known shape is understood, anything else raises ValueError."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire import parsing
from llama_orch.engines.wire.adapter import (
    AnswerPart,
    EngineCall,
    EngineRefusal,
    Finished,
    StreamChunk,
    TextPiece,
    WholeAnswer,
)
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.openai_calls import OpenAiPassage
from llama_orch.engines.wire.openai_stream import EMPTY
from llama_orch.engines.wire.parsing import (
    MESSAGE_LIMIT,
    json_object,
    refusal_of_event,
    refusal_of_status,
    without_numbers,
)
from llama_orch.engines.wire.passage import Passage
from llama_orch.engines.wire.stop_texts import StopTexts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["content", "stop", "error", "choices", "usage", "token", "text_output", "stop_reason", "delta", "details", "data"]
)
EVENTS = st.dictionaries(FIELDS, JSON, max_size=4)

TOO_LONG = "context_length_exceeded"


def prompt(engine: str, **request: Any) -> EngineCall:
    return adapters()[engine].call(TaskRequest(prompt="x", **request), None, "m")


def chat(**body: Any) -> OpenAiPassage:
    return OpenAiPassage(Passage("chat", body, 1), None)


def parsed(call: EngineCall, *events: object) -> list[AnswerPart]:
    """The parsed parts of `events`, in order."""
    return [part for event in events for part in call.event(json.dumps(event))]


def choice(text: str = "", finish: str | None = None, index: int = 0, **delta: object) -> dict[str, Any]:
    content = {"content": text} if text else {}
    return {"choices": [{"index": index, "delta": {**content, **delta}, "finish_reason": finish}]}


# errors


@pytest.mark.parametrize(
    ("status", "client_fault", "busy"),
    [
        (400, True, False),
        (404, True, False),
        (408, False, False),
        (413, True, False),
        (422, True, False),
        (424, False, False),
        (429, False, True),
        (500, False, False),
        (501, True, False),
        (503, False, True),
        (302, False, False),
    ],
)
def test_status_tells_whose_fault_it_is(status: int, client_fault: bool, busy: bool) -> None:
    assert refusal_of_status(status, b"") == EngineRefusal(f"status {status}", client_fault, busy)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}', "too long"),
        ('{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}', "too long"),
        ('{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
        ('{"error":"too long","error_type":"validation"}', "too long"),
        ('{"detail":"too long"}', "too long"),
        ('{"detail":[{"loc":["body","n"],"msg":"too long"},{"msg":"too many"}]}', "too long; too many"),
        ("<h1>Bad Gateway</h1>", "<h1>Bad Gateway</h1>"),
        ('{"error":{"nothing":"known"}}', '{"error":{"nothing":"known"}}'),
        ("[1]", "[1]"),
        ("", "status 400"),
    ],
)
def test_message_is_found_in_every_error_shape(body: str, words: str) -> None:
    assert refusal_of_status(400, body.encode()).message == words


@pytest.mark.parametrize(
    ("event", "client_fault", "busy"),
    [
        ({"error": {"code": 500, "message": "m"}}, False, False),
        ({"error": {"code": 400, "message": "m"}}, True, False),
        ({"error": {"code": "400", "message": "m"}}, True, False),
        ({"error": {"code": "invalid_value", "type": "invalid_request_error", "message": "m"}}, True, False),
        ({"error": {"code": 503, "message": "m", "type": "unavailable_error"}}, False, True),
        ({"object": "error", "message": "m", "code": 400}, True, False),
        ({"error": "m", "error_type": "validation"}, True, False),
        ({"error": "m", "error_type": "overloaded"}, False, True),
        ({"error": "m", "error_type": "generation"}, False, False),
        ({"error": "m"}, False, False),
    ],
)
def test_error_event_is_classified_by_code_or_type(event: dict[str, Any], client_fault: bool, busy: bool) -> None:
    assert refusal_of_event(event) == EngineRefusal("m", client_fault, busy)


@pytest.mark.parametrize(
    ("message", "client_fault"),
    [
        ("Failed to parse tools: Missing tool function", True),
        ("Failed to parse messages: Missing tool call type: 5", True),
        ("image input is not supported - hint: you may need to provide the mmproj", True),
        ("Cannot use both json_schema and grammar", True),
        ("Unknown reasoning format: nonsense", True),
        ("Failed to download image", True),
        ("Failed to load image or audio file", True),
        ("Invalid url value", True),
        ("While executing:\n{{ raise_exception(…) }}\nError: Jinja Exception: Roles must alternate", True),
        ("Compute error.", False),
        ("Failed to parse input at pos 5: <tool_call>", False),  # of the model's own answer
        ("out of memory in a request that says: image input is not supported", False),
    ],
)
def test_llama_server_500_may_be_the_clients_fault(message: str, client_fault: bool) -> None:
    body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    assert adapters()["llamacpp"].refusal(500, body) == EngineRefusal(message, client_fault)
    assert not adapters()["vllm"].refusal(500, body).client_fault


@pytest.mark.parametrize(
    ("engine", "status", "message", "reason"),
    [
        ("llamacpp", 500, "input (902 tokens) is too large to process. increase the physical batch size", TOO_LONG),
        ("llamacpp", 500, "input is too large to process. increase the physical batch size", TOO_LONG),
        ("llamacpp", 500, "[json.exception.type_error.302] type must be string, but is number", None),
        ("vllm", 500, "This model's maximum context length is 4096 tokens. However, you requested 5000", TOO_LONG),
        ("vllm", 500, "Conversation roles must alternate user/assistant/user/assistant/...", None),
        ("vllm", 500, "cannot identify image file <_io.BytesIO object at 0x7f>", None),
        ("tgi", 424, "Request failed during generation: Server error: Could not translate the instance {'a'", None),
        ("triton", 500, "Prompt length (200) exceeds maximum input length (1)", TOO_LONG),
        ("triton", 500, "[request id: <id_unknown>] expected 4 inputs but got 1 inputs for model 'm'", None),
        ("openai-http", 500, "input (902 tokens) is too large to process", TOO_LONG),
    ],
)
def test_known_error_pattern_is_the_clients_fault(engine: str, status: int, message: str, reason: str | None) -> None:
    body = json.dumps({"error": message} if engine in ("tgi", "triton") else {"error": {"message": message}}).encode()
    found = adapters()[engine].refusal(status, body)
    assert (found.client_fault, found.reason) == (True, reason)


@pytest.mark.parametrize("engine", sorted(adapters()))
@pytest.mark.parametrize("message", ["CUDA error: out of memory", "EngineCore encountered an issue", "oops", ""])
def test_other_server_errors_are_not_the_clients_fault(engine: str, message: str) -> None:
    assert not adapters()[engine].refusal(500, json.dumps({"error": message}).encode()).client_fault


@pytest.mark.parametrize("status", [401, 403, 407])
def test_credentials_are_not_the_clients_fault(status: int) -> None:
    assert not adapters()["llamacpp"].refusal(status, b'{"error":{"message":"Invalid API Key"}}').client_fault


PROMPT_TOO_LONG = (
    {"error": {"code": 400, "message": "m", "type": "exceed_context_size_error", "n_ctx": 512}},
    {"error": {"code": "context_length_exceeded", "message": "m", "type": "invalid_request_error"}},
    {"error": {"code": 400, "message": "This model's maximum context length is 8 tokens.", "type": "BadRequestError"}},
    {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400},
    {"error": {"code": 400, "message": "The decoder prompt (length 9) is longer than the maximum model length of 8."}},
    {"error": "Input validation error: `inputs` must have less than 8 tokens. Given: 9", "error_type": "validation"},
    {
        "error": "`inputs` tokens + `max_new_tokens` must be <= 8. Given: 7 `inputs` tokens and 2 `max_new_tokens`",
        "error_type": "validation",
    },
)


@pytest.mark.parametrize("body", PROMPT_TOO_LONG)
def test_exceeded_context_is_recognised_for_every_engine(body: dict[str, Any]) -> None:
    assert refusal_of_status(400, json.dumps(body).encode()).reason == "context_length_exceeded"
    assert refusal_of_event(body).reason == "context_length_exceeded"


def test_server_fault_has_no_context_reason() -> None:
    body = {"error": {"message": "maximum context length: out of memory", "code": 500}}
    assert refusal_of_status(500, json.dumps(body).encode()).reason is refusal_of_event(body).reason is None
    assert refusal_of_status(400, b'{"error":{"message":"m","type":["exceed_context_size_error"]}}').reason is None


@pytest.mark.parametrize("choices", ["x", 5, {"index": 0}, [None], ["x"], [[]], [{"delta": {}}, 5], True])
def test_malformed_choices_are_refused(choices: object) -> None:
    for call in (chat(), prompt("vllm"), prompt("openai-http")):
        with pytest.raises(ValueError, match="`choices` is not a list of objects"):
            call.event(json.dumps({"choices": choices, "usage": {"prompt_tokens": 1}}))


@pytest.mark.parametrize("number", [-1, 1.5, True, "5", None, 10**400])
def test_impossible_counts_are_ignored(number: object) -> None:
    call = chat()
    parsed(call, choice("a"), {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": number}})
    assert call.event("[DONE]") == [Finished(1, None)]


@given(st.integers(300, 599), st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_error_body_is_tolerated(status: int, body: bytes) -> None:
    assert 0 < len(refusal_of_status(status, body).message) <= MESSAGE_LIMIT


def test_long_error_is_cut_and_deep_one_tolerated() -> None:
    assert len(refusal_of_status(500, b'{"error":"%s"}' % (b"x" * 10_000)).message) == MESSAGE_LIMIT
    assert refusal_of_status(500, b"[" * 100_000).message.startswith("[[[")


@pytest.mark.parametrize("data", ["", "[]", "1", "{", '{"a":"\\ud800"}', '{"a":1} x', "[" * 100_000])
def test_non_objects_are_refused(data: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|expected|EOF|surrogate|trailing|recursion|key"):
        json_object(data)


@pytest.mark.parametrize("engine", adapters())
@given(events=st.lists(EVENTS.map(json.dumps) | st.text(max_size=20) | st.just("[DONE]"), max_size=4))
def test_any_event_is_parsed_or_raises_value_error(engine: str, events: list[str]) -> None:
    dialogues = [prompt(engine, stop=["stop"])]
    if "chat" in adapters()[engine].endpoints:
        dialogues.append(adapters()[engine].call(TaskRequest(), Passage("chat", {}, 1), "m"))
    for call in dialogues:
        for event in events:
            try:
                parts = call.event(event)
            except (ValueError, RecursionError):
                continue
            assert all(isinstance(part, TextPiece | StreamChunk | Finished | EngineRefusal) for part in parts)
        assert all(isinstance(part, TextPiece | Finished) for part in call.closed())


@given(st.binary(max_size=50) | EVENTS.map(lambda value: json.dumps(value).encode()))
def test_any_document_is_parsed_or_raises_value_error(body: bytes) -> None:
    embeddings = OpenAiPassage(Passage("embeddings", {"input": "x"}, 1), None)
    try:
        *_others, last = embeddings.whole(body)
    except (ValueError, RecursionError):
        return
    assert isinstance(last, Finished | EngineRefusal)


# llama-server


def test_llama_server_pieces_and_counts() -> None:
    last = {"content": "!", "stop": True, "tokens_evaluated": 9, "tokens_predicted": 2, "timings": {"cache_n": 4}}
    parts = parsed(prompt("llamacpp"), {"content": "a", "stop": False}, {"content": "", "stop": False}, last)
    assert parts == [TextPiece("a"), TextPiece(""), TextPiece("!"), Finished(9, 2, 4)]


# OpenAI


def test_chat_is_passed_on_unchanged_with_its_counts() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    call = chat()
    role, hello, stop = choice(role="assistant", content=None), choice("hello"), choice(finish="stop")
    counted = {"choices": [], "usage": usage}
    assert parsed(call, role, hello, stop, counted) == [
        StreamChunk(json.dumps(role)),
        StreamChunk(json.dumps(hello), tokens=1),
        StreamChunk(json.dumps(stop)),
        StreamChunk(json.dumps(counted), usage=True),
    ]
    assert call.event("[DONE]") == [Finished(5, 2, 3)]


@pytest.mark.parametrize(
    "delta", [{"content": "a"}, {"reasoning": "a"}, {"reasoning_content": "a"}, {"tool_calls": [{"index": 0}]}]
)
def test_any_delta_content_counts_as_a_token(delta: dict[str, Any]) -> None:
    (part,) = parsed(chat(), choice(role="assistant", **delta))
    assert part == StreamChunk(json.dumps(choice(role="assistant", **delta)), tokens=1)


def test_chunks_without_choices_and_counts_are_dropped() -> None:
    assert parsed(chat(), {"object": "keepalive"}, {"choices": [], "prompt_filter_results": []}) == []


def test_empty_stream_is_refused() -> None:
    assert chat().event("[DONE]") == [EMPTY]
    assert not EMPTY.client_fault


@pytest.mark.parametrize(
    ("body", "finished", "complete"),
    [
        ({}, 0, False),
        ({}, 1, True),
        ({"n": 2}, 1, False),
        ({"n": 2}, 2, True),
        ({"prompt": ["a", "b"]}, 1, False),
        ({"prompt": ["a", "b"], "n": 2}, 4, True),
        ({"prompt": [1, 2, 3]}, 1, True),
        ({"prompt": [[1], [2]]}, 1, False),
    ],
)
def test_without_done_all_choices_must_be_finished(body: dict[str, Any], finished: int, complete: bool) -> None:
    call = chat(**body)
    parsed(call, choice("a"), *(choice(finish="stop", index=index) for index in range(finished)))
    assert call.closed() == ([Finished(None, None)] if complete else [])


def test_multi_line_json_is_passed_on_in_one_line() -> None:
    (part,) = chat().event('{"choices":\r\n [{"delta":\n{"content":"a\\nb"}}]}')
    assert isinstance(part, StreamChunk)
    assert part.raw == '{"choices":   [{"delta": {"content":"a\\nb"}}]}'


def test_document_is_passed_on_with_its_counts() -> None:
    embeddings = OpenAiPassage(Passage("embeddings", {"input": "x"}, 1), None)
    body = b'{"data":\n[],"usage":{"prompt_tokens":4}}'
    assert embeddings.whole(body) == [WholeAnswer('{"data": [],"usage":{"prompt_tokens":4}}'), Finished(4, 0)]
    assert embeddings.whole(b'{"error":{"message":"m","code":400}}') == [EngineRefusal("m", client_fault=True)]


# TGI


def token(text: str, *, special: bool = False, **rest: object) -> dict[str, Any]:
    return {"token": {"id": 1, "text": text, "special": special}, "generated_text": None, "details": None, **rest}


def test_tgi_special_tokens_are_not_text() -> None:
    details = {"generated_tokens": 2, "input_length": 7, "finish_reason": "eos_token"}
    last = token("</s>", special=True, generated_text="a", details=details)
    assert parsed(prompt("tgi"), token("<s>", special=True), token("a"), last) == [
        TextPiece(""),
        TextPiece("a"),
        TextPiece(""),
        Finished(7, 2),
    ]


def test_tgi_held_back_text_is_sent_at_the_end() -> None:
    parts = parsed(prompt("tgi", stop=["END"]), token("a E"), token("N", generated_text="a EN", details={}))
    assert parts == [TextPiece("a "), TextPiece("EN"), Finished(None, None)]


def test_tgi_stop_text_is_cut_off() -> None:
    parts = parsed(prompt("tgi", stop=["END"]), token("a E"), token("ND", generated_text="a END", details={}))
    assert parts == [TextPiece("a "), TextPiece(""), Finished(None, None)]


# Triton


def test_triton_answer_ends_with_its_stream() -> None:
    call = prompt("triton")
    parts = parsed(call, {"text_output": "a", "num_input_tokens": 3}, {"text_output": ["b"]}, {"text_output": ""})
    assert parts == [TextPiece("a"), TextPiece("b"), TextPiece("")]
    assert call.closed() == [TextPiece(""), Finished(3, None)]


def test_empty_triton_stream_is_incomplete() -> None:
    assert prompt("triton").closed() == []


def test_triton_held_back_text_is_sent_at_the_end() -> None:
    call = prompt("triton", stop=["END"])
    assert parsed(call, {"text_output": "a EN"}) == [TextPiece("a ")]
    assert call.closed() == [TextPiece("EN"), Finished(None, None)]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=4), max_size=6))
def test_only_the_new_part_of_accumulated_text_is_sent(pieces: list[str]) -> None:
    so_far = ["".join(pieces[: end + 1]) for end in range(len(pieces))]
    parts = parsed(prompt("triton"), *({"text_output": text, "stop_reason": "None"} for text in so_far))
    assert parts == [TextPiece(piece) for piece in pieces]


def test_incomplete_character_is_held_back() -> None:
    so_far = ["a", "a\ufffd", "a\ufffd\ufffd", "aé", "aé!"]
    parts = parsed(prompt("triton"), *({"text_output": text, "stop_reason": "None"} for text in so_far))
    assert parts == [TextPiece("a"), TextPiece(""), TextPiece(""), TextPiece("é"), TextPiece("!")]


def test_changed_accumulated_text_is_refused() -> None:
    call = prompt("triton")
    parsed(call, {"text_output": "abc", "stop_reason": "None"})
    with pytest.raises(ValueError, match="does not begin with the previous one"):
        parsed(call, {"text_output": "abX", "stop_reason": "None"})


# stop texts


def pieces_of(text: str, cuts: list[int]) -> Iterator[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    for start, end in zip([0, *ends], ends, strict=False):
        yield text[start:end]


@given(
    text=st.text("ab", max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
    cuts=st.lists(st.integers(0, 12), max_size=8),
)
@example(text="abb", stops=["abb", "b"], cuts=[])
@example(text="abb", stops=["abb", "b"], cuts=[1, 2])
def test_answer_ends_before_first_stop_text_in_any_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    reader, shown, stopped = StopTexts(stops), "", False
    for piece in pieces_of(text, cuts):
        more, stopped = reader.feed(piece)
        shown += more
        if stopped:
            break
    ends = [end for end in range(len(text) + 1) if text[:end].endswith(tuple(stops))] if stops else []
    assert stopped == bool(ends)
    seen = text[: min(ends, default=len(text))]
    longest = max((len(stop) for stop in stops if seen.endswith(stop)), default=0)
    assert shown + ("" if stopped else reader.rest()) == seen[: len(seen) - longest]


def test_only_possible_stop_texts_are_held_back() -> None:
    reader = StopTexts(["END"])
    assert reader.feed("word E") == ("word ", False)
    assert reader.feed("x") == ("Ex", False)


def test_only_arrays_of_numbers_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {
        "data": [{"embedding": [0.5, -1e-7, 3], "index": 0}, {"embedding": []}],
        "usage": {"n": [1]},
        "x": ["1"],
    }
    body = json.dumps(document).encode()
    assert without_numbers(body) == body
    monkeypatch.setattr(parsing, "LARGE_BYTES", 0)
    assert json.loads(without_numbers(body)) == {
        **document,
        "data": [{"embedding": [], "index": 0}, {"embedding": []}],
        "usage": {"n": []},
    }
    assert without_numbers(b"{}") == b"{}"
