"""An answer of a chat, put together from what streams in."""

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
def test_it_is_all_that_came_and_each_chunk_gives_what_is_new(texts: list[str | None]) -> None:
    answer = ChatAnswer()
    said = [answer.take(chunk(text)) for text in texts]
    assert said == [text or "" for text in texts]
    assert answer.text == "".join(said)


@given(TEXTS, st.text())
def test_what_a_model_thinks_is_no_part_of_it(texts: list[str | None], thought: str) -> None:
    answer = ChatAnswer()
    for text in texts:
        answer.take(chunk(text, thought=thought))
    assert answer.text == "".join(text or "" for text in texts)
    assert chunk(thought=thought).thinks is bool(thought)


def test_the_last_chunk_has_the_counts_and_no_choice() -> None:
    answer = ChatAnswer()
    for each in (chunk("a"), chunk(None, "stop"), AnswerChunk(id="later", usage=USAGE), AnswerChunk(id="more")):
        answer.take(each)
    assert answer.document() == {
        "id": "c",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def test_one_that_broke_off_says_no_more_than_came() -> None:
    answer = ChatAnswer()
    answer.take(chunk("half"))
    document = json.loads(json.dumps(answer.document()))
    assert (document["choices"][0]["finish_reason"], document["usage"]) == (None, None)
