"""The lines of a batch's files: each mistake is named with its line, and a cut result file is read up to the cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.batches import Url
from queen_rbee.batches.lines import LINE_BYTES, LINES_LIMIT, digest, finished, index, parsed, result, unanswered

CHATS: Url = "/v1/chat/completions"


def line(custom_id: str, **changes: object) -> bytes:
    request = {"custom_id": custom_id, "method": "POST", "url": CHATS, "body": {"model": "m"}, **changes}
    return json.dumps(request).encode() + b"\n"


def test_requests_are_found_at_their_offsets():
    lines = [line("a"), b"\n", line("b")]
    found = index(lines, CHATS)
    assert found.problems == []
    whole = b"".join(lines)
    assert [parsed(whole[start:].split(b"\n")[0]).custom_id for start in found.starts] == ["a", "b"]
    assert found.line_of == {digest("a"): 0, digest("b"): 1}


@pytest.mark.parametrize(
    ("bad", "code", "words"),
    [
        (b"hello\n", "invalid_line", "is not JSON"),
        (b"[]\n", "invalid_line", "must be a JSON object"),
        (line("b", method="GET"), "invalid_line", "method: "),
        (line("b", body="hello"), "invalid_line", "body: "),
        (line(""), "invalid_line", "custom_id: "),
        (line("b", url="/v1/nothing"), "invalid_line", "url: "),
        (line("b", url="/v1/embeddings"), "mismatched_url", "/v1/embeddings"),
        (line("a"), "duplicate_custom_id", "custom_id"),
        (b"{" + b" " * LINE_BYTES + b"}\n", "invalid_line", "longer than"),
    ],
)
def test_mistake_is_named_with_its_line(bad: bytes, code: str, words: str):
    [problem] = index([line("a"), bad, line("c")], CHATS).problems
    assert (problem.code, problem.line) == (code, 2)
    assert words in problem.message


def test_file_without_requests_is_refused():
    assert [problem.code for problem in index([b"\n"], CHATS).problems] == ["empty_file"]


def test_number_of_lines_is_bounded():
    lines = (line(str(number)) for number in range(LINES_LIMIT + 10))
    assert [problem.code for problem in index(lines, CHATS).problems] == ["too_many_lines"]


IDS = st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=8)
BODIES = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3)


@given(IDS, BODIES, st.data())
def test_result_file_cut_anywhere_has_its_whole_lines(ids: list[str], body: dict[str, object], data: st.DataObject):
    pretty = json.dumps(body, indent=1).encode()
    results = [result(each, f"r{number}", 200, pretty) for number, each in enumerate(ids)]
    whole = b"".join(results)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    found = list(finished(cut.splitlines(keepends=True)))
    assert cut[: found[-1][1] if found else 0] == b"".join(results[: len(found)])
    assert len(cut) - (found[-1][1] if found else 0) < (len(results[len(found)]) if len(found) < len(results) else 1)
    assert [key for key, _end in found] == [digest(each) for each in ids[: len(found)]]
    for each, written in zip(ids, results, strict=True):
        assert json.loads(written)["custom_id"] == each
        assert json.loads(written)["response"]["body"] == body


def test_expired_request_has_an_error_and_no_response():
    written = json.loads(unanswered("a", "1", "batch_expired", "late"))
    assert (written["custom_id"], written["response"]) == ("a", None)
    assert written["error"] == {"code": "batch_expired", "message": "late"}
