"""Forms with a file: however they are cut into pieces, field and file are found; anything else is refused in words."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.multipart import FIELD_BYTES, PARTS_LIMIT, Form

TYPE = "multipart/form-data; boundary=xyz"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    more = f'; filename="{filename}"' if filename else ""
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def read(body: bytes, *cuts: int, content_type: str = TYPE) -> tuple[Form, bytes]:
    """Feed `body` in the pieces that `cuts` make; return the form and the file."""
    form, places = Form(content_type), [0, *sorted(cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places)]
    return form, b"".join(data for piece in (*pieces, None) for data in form.feed(piece))


@given(st.binary(max_size=300).filter(lambda content: b"--xyz" not in content), st.data())
def test_form_is_read_however_it_is_cut(content: bytes, data: st.DataObject):
    body = part("purpose", b"batch") + part("file", content, "a.jsonl") + b"--xyz--\r\n"
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    form, file = read(body, *cuts)
    assert (form.fields, form.filename, file) == ({"purpose": "batch"}, "a.jsonl", content)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"--xyz\r\n", "valid form"),
        (part("file", b"half", "a")[:-6], "valid form"),
        (part("file", b"1", "a") + part("file", b"2", "b") + b"--xyz--\r\n", "only 'file'"),
        (part("other", b"1", "a") + b"--xyz--\r\n", "only 'file'"),
        (part("purpose", b"x" * (FIELD_BYTES + 1)) + b"--xyz--\r\n", "longer than"),
        (part("a", b"") * (PARTS_LIMIT + 1) + b"--xyz--\r\n", "too many parts"),
        (b"--xyz\r\nX: " + b"a" * (2 << 20), "too long"),
    ],
)
def test_bad_form_is_refused(body: bytes, words: str):
    with pytest.raises(ApiError, match=words) as refused:
        read(body)
    assert refused.value.status == 400


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_other_type_is_refused(content_type: str):
    with pytest.raises(ApiError, match="multipart/form-data"):
        Form(content_type)
