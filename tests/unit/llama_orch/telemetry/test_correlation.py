"""Correlation ids of clients and generated ones."""

import re
import uuid

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from llama_orch.telemetry.correlation import accepted

PLAIN = st.from_regex(r"[A-Za-z0-9._:+/=-]{1,128}", fullmatch=True)


@given(PLAIN)
def test_plain_token_is_echoed(value: str) -> None:
    assert accepted(value) == value


@given(st.text() | st.none() | st.binary().map(lambda value: value.decode("latin-1")))
@example("id\r\nset-cookie: a=b")
@example("id\n")
@example("x" * 129)
@example("")
def test_any_id_gives_a_one_line_header(value: str | None) -> None:
    identifier = accepted(value)
    assert re.fullmatch(r"[A-Za-z0-9._:+/=-]{1,128}", identifier)
    response = h11.Response(status_code=200, headers=[("x-correlation-id", identifier)])
    assert len(response.headers) == 1
    if identifier != value:
        assert uuid.UUID(identifier).version == 4


@given(st.text(max_size=1))
def test_generated_ids_differ(value: str) -> None:
    assert value.isascii() or accepted(value) != accepted(value)
