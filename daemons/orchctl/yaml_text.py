"""JSON documents as YAML: block style, and every string in double quotes.

A subset that every YAML parser reads alike, 1.1 or 1.2, so that no string turns into a number, a date or a boolean.
"""

import re
from collections.abc import Iterator

from pydantic import JsonValue

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Keys that YAML 1.1 does not take for strings, in any case."""
ESCAPED = re.compile('[\\x00-\\x1f\\x7f-\\xa0\\xad\\u2028\\u2029\\ud800-\\udfff\\ufeff\\ufffe\\uffff"\\\\]')
SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
SURROGATES = range(0xD800, 0xE000)


def yaml_text(document: JsonValue) -> str:
    """Return the document with a line end."""
    return "\n".join(_block(document, "")) + "\n"


def _block(value: JsonValue, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _entry(f"{indent}{_key(name)}:", child, f"{indent}  ")
    elif isinstance(value, list) and value:
        for child in value:
            lines = list(_block(child, f"{indent}  "))
            yield f"{indent}- {lines[0].removeprefix(f'{indent}  ')}"
            yield from lines[1:]
    else:
        yield f"{indent}{_scalar(value)}"


def _entry(head: str, child: JsonValue, indent: str) -> Iterator[str]:
    if child and isinstance(child, (dict, list)):
        yield head
        yield from _block(child, indent)
    else:
        yield f"{head} {_scalar(child)}"


def _key(name: str) -> str:
    return name if PLAIN_KEY.fullmatch(name) and name.lower() not in WORDS else _quoted(name)


def _scalar(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            text = repr(value)
            # YAML 1.1 takes 1e+16 for a string
            return text if "." in text or "e" not in text else text.replace("e", ".0e")
        case str():
            return _quoted(value)
    return "{}" if isinstance(value, dict) else "[]"


def _quoted(text: str) -> str:
    return f'"{ESCAPED.sub(_escape, text)}"'


def _escape(found: "re.Match[str]") -> str:
    code = ord(found[0])
    if code in SURROGATES:
        return "\N{REPLACEMENT CHARACTER}"  # half a character, which YAML cannot represent
    return SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
