"""A chat answer, assembled from its chunks."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from orchctl.chat.answer import AnswerChunk, ChatAnswer, ChunkChoice, ChunkDelta

TEXTS = st.lists(st.none() | st.text())
USAGE: dict[str, JsonValue] = {"total_tokens": 3}


def chunk(text: str | None = None, finish_reason: str | None = None, thought: str | None = None) -> AnswerChunk:
    delta = ChunkDelta(content=text, reasoning_content=thought)
    return AnswerChunk(id="c", created=5, model="m", choices=[ChunkChoice(delta=delta, finish_reason=finish_reason)])


@given(TEXTS)
def test_answer_is_concatenation_of_chunks(texts: list[str | None]) -> None:
    answer = ChatAnswer()
    texts_added = [answer.add(chunk(text)) for text in texts]
    assert texts_added == [text or "" for text in texts]
    assert answer.text == "".join(texts_added)


@given(TEXTS, st.text())
def test_reasoning_is_not_part_of_answer(texts: list[str | None], thought: str) -> None:
    answer = ChatAnswer()
    for text in texts:
        answer.add(chunk(text, thought=thought))
    assert answer.text == "".join(text or "" for text in texts)
    assert chunk(thought=thought).has_reasoning is bool(thought)


def test_last_chunk_sets_usage() -> None:
    answer = ChatAnswer()
    for each in (chunk("a"), chunk(None, "stop"), AnswerChunk(id="later", usage=USAGE), AnswerChunk(id="more")):
        answer.add(each)
    assert answer.document() == {
        "id": "c",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def test_incomplete_answer_has_no_finish_reason() -> None:
    answer = ChatAnswer()
    answer.add(chunk("half"))
    document = json.loads(json.dumps(answer.document()))
    assert (document["choices"][0]["finish_reason"], document["usage"]) == (None, None)
