"""Sliced JSON equals the standard library's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.engines.wire import sliced_json
from llama_orch.engines.wire.sliced_json import sliced

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(document=DOCUMENTS, long=st.integers(1, 5))
def test_slices_make_the_same_document(document: Any, long: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_json, "SLICE", long)
        assert b"".join(sliced(document)) == json.dumps(document, ensure_ascii=False).encode()


def test_long_text_comes_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_json, "SLICE", 100)
    pieces = list(sliced({"a": [{"b": "x" * 1000}], "c": [1] * 10}))
    assert max(map(len, pieces)) == 100
