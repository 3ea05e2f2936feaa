"""Standard input: strict decoding, line ends, closed input."""

import io
from unittest import mock

import pytest

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.stdin import read_stdin
from tests.unit.orchctl.running import run_process


def stdin_with(data: bytes) -> io.TextIOWrapper:
    """Return a standard input with `data`, which passes invalid bytes on, as Python opens it in the C locale."""
    return io.TextIOWrapper(io.BytesIO(data), "utf-8", errors="surrogateescape")


def test_closed_or_failing_stdin_is_missing_input() -> None:
    class Failing(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    for stdin, words in ((None, "is closed"), (io.TextIOWrapper(Failing()), "Input/output error")):
        with mock.patch("sys.stdin", stdin), pytest.raises(CommandError, match=words) as caught:
            read_stdin()
        assert caught.value.status is ExitStatus.NO_INPUT


@pytest.mark.parametrize(
    ("data", "offset"), [(b"\xff", 0), ("gr\u00fc\u00dfe ".encode() + b"\xfc", 8), (b"a" * 9000 + b"\xc3", 9000)]
)
def test_invalid_byte_on_stdin_is_named(data: bytes, offset: int) -> None:
    with mock.patch("sys.stdin", stdin_with(data)), pytest.raises(CommandError, match="standard input") as caught:
        read_stdin()
    assert f"byte {offset} (0x{data[offset]:02x}" in caught.value.message
    assert caught.value.status is ExitStatus.DATA


def test_cr_and_crlf_are_line_ends() -> None:
    with mock.patch("sys.stdin", stdin_with(b"a\r\nb\rc")):
        assert read_stdin() == "a\nb\nc"


def test_invalid_stdin_is_not_blamed_on_arguments() -> None:
    result = run_process("submit", "--url", "http://127.0.0.1:1", stdin=b"caf\xe9", LC_ALL="C")
    assert result.returncode == ExitStatus.DATA
    assert "byte 3 (0xe9" in result.stderr
    assert "command line" not in result.stderr
