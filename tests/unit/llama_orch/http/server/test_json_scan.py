"""The scan of JSON bodies, compared with a parser."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server import json_scan
from llama_orch.http.server.json_scan import DIGIT_LIMIT, JsonScan, Shape

MANY = 10**9
TEXTS = st.text(st.sampled_from('aé"\\[]{},:1 \n'))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


def scan(body: bytes, cuts: list[int], values: int = MANY, nodes: int = MANY) -> None:
    scan, at = JsonScan(Shape(values, nodes)), 0
    for cut in [*sorted(cuts), len(body)]:
        scan.feed(body[at:cut])
        at = max(at, cut)


def count(document: Any) -> tuple[int, int]:
    """Count values and nodes of `document` as the scan does: values by commas and opening brackets."""
    if not isinstance(document, dict | list):
        return 0, 0
    inner = [count(one) for one in (document.values() if isinstance(document, dict) else document)]
    values = sum(value for value, _ in inner) + max(0, len(document) - 1) + 1
    keys = len(document) if isinstance(document, dict) else 0
    return values, sum(node for _, node in inner) + keys + 1


@given(document=DOCUMENTS, ascii_only=st.booleans(), cuts=st.lists(st.integers(0, 200)))
def test_counts_are_independent_of_slicing(document: Any, ascii_only: bool, cuts: list[int]) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    values, nodes = count(document)
    scan(body, cuts, values, nodes)
    for fewer in ((values - 1, nodes), (values, nodes - 1)):
        if min(fewer) >= 0:
            with pytest.raises(ApiError):
                scan(body, cuts, *fewer)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" + b"1," * 20, "values"),
        (b"[" * 20, "values"),
        (b'{"a":{"a":{"a":{"a":{"a":', "objects"),
        (b"[" + b"1" * DIGIT_LIMIT, "digits"),
    ],
)
def test_exceeded_limit_is_named(body: bytes, words: str) -> None:
    with pytest.raises(ApiError, match=words) as refused:
        scan(body, [], values=10, nodes=8)
    assert refused.value.status == 400
    assert [problem.field for problem in refused.value.body.fields or ()] == ["body"]


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (b'"' + b"A" * 500 + b'"', True),
        (b'["\\n","' + b"A" * 500 + b'"]', True),
        (b'"' + b"A" * 500 + b'\\n"', False),
        (b'"' + "é".encode() + b"A" * 500, False),
        (b'["' + b'\\n","' * 100, False),
        (b" " * 500, False),
    ],
)
def test_plain_ascii_is_exempt_from_text_limit(body: bytes, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scan, "TEXT_LIMIT", 200)
    for cuts in ([], [*range(0, len(body), 7)], [*range(len(body))]):
        if fits:
            scan(body, cuts)
        else:
            with pytest.raises(ApiError, match="text"):
                scan(body, cuts)
