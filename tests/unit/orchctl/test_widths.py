"""The width of text on a terminal: wide characters, combining ones, and text that is cut, filled or wrapped."""

import ctypes
import locale

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.widths import character_width, cut, pad, truncate, width, wrap

TEXT = st.text(st.sampled_from("ab é界가ｶ🦙e\u0301\u200d\u1161"))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("abc", 3),
        ("é", 1),
        ("e\u0301", 1),
        ("界", 2),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}", 2),
        ("ｶ", 1),
        ("가", 2),
        ("\u1100\u1161", 2),
        ("🦙", 2),
    ],
)
def test_width_is_counted_in_columns(text: str, columns: int) -> None:
    assert width(text) == columns


def test_width_agrees_with_c_library() -> None:
    """Of characters that have been there for long: the library may have another version of Unicode."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        wcwidth = ctypes.CDLL(None).wcwidth
        ranges = [(0x20, 0x7F), (0xC0, 0x250), (0x300, 0x370), (0x3A3, 0x3CA), (0x3041, 0x3097), (0x4E00, 0x9FA6)]
        ranges += [(0xAC00, 0xD7A4), (0xFF01, 0xFFBF), (0x1161, 0x11A3), (0x1F600, 0x1F640)]
        codes = [code for begin, end in ranges for code in range(begin, end)]
        assert [chr(code) for code in codes if wcwidth(code) != character_width(chr(code))] == []
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


@given(TEXT, st.integers(1, 20))
def test_cut_and_truncated_text_fits(text: str, columns: int) -> None:
    assert width(cut(text, columns)) <= columns
    assert width(truncate(text, columns)) <= columns
    assert text.startswith(cut(text, columns))
    assert (truncate(text, columns) == text) == (width(text) <= columns)


@given(TEXT)
def test_padded_text_fills_its_columns(text: str) -> None:
    assert width(pad(text, 200)) == max(200, width(text))


@given(TEXT, st.integers(2, 20))
def test_wrapped_lines_fit_and_lose_nothing(text: str, columns: int) -> None:
    lines = wrap(text, columns)
    assert all(width(line) <= columns for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
