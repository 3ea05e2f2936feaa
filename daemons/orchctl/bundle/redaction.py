"""Redaction of what a support bundle contains. Pure functions: text in, text without secrets out."""

import re
from collections.abc import Iterable

from llama_orch.redaction import HIDDEN, SECRET
from llama_orch.settings.declared import DECLARED
from llama_orch.urls import hidden_in

MIN_SECRET = 6
"""Secrets that are known are hidden wherever they occur; shorter ones would hide ordinary words."""

SECRET_VARIABLES = frozenset(each.env for declared in DECLARED.values() for each in declared if each.secret)
PATH_SUFFIXES = ("_FILE", "_PATH", "_DIR")
AWS_PLAIN = re.compile(r"AWS_(ENDPOINT_URL|.*(FILE|PROFILE|REGION|URLS)$)")
COUNTS = re.compile(r"tokens|token_fp6|(first|next|per|each)_token")
"""Parts of names that are about tokens of text, or a fingerprint."""

NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,127}"
VALUE = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s"',;\]}]+)"""
LINE = re.compile(rf"^(?P<head>[ \t]*(?:Environment=)?[\"']?(?P<name>{NAME})=)(?P<value>.*)$", re.MULTILINE)
ASSIGNMENT = re.compile(rf"(?<![A-Za-z0-9_.-])(?P<name>{NAME})(?P<end>[\"']?[ \t]*[=:][ \t]*)(?P<value>{VALUE})")
SEPARATOR = r"[\"']?[ \t]*[=,][ \t]*|[ \t]+(?!--)"
OPTION = re.compile(rf"(?<![\w-])(?P<name>--?[a-z][a-z0-9-]{{0,63}})(?P<end>{SEPARATOR})(?P<value>{VALUE})", re.I)
SCHEME = re.compile(r"\b(Bearer|Basic|Digest|Negotiate)(\s+)([A-Za-z0-9._~+/=%:-]{4,})", re.I)
HEADER = re.compile(
    r"\b((?:proxy-)?authorization|x-api-key|api-key|(?:set-)?cookie|x-amz-security-token)"
    r"(\"?\s{0,8}[:=]\s{0,8}\"?)([^\r\n\"]+)",
    re.I,
)
SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def is_secret_name(name: str) -> bool:
    """Whether a variable, key or option of this name holds a secret, and not the path of one."""
    upper = name.upper().replace("-", "_")
    if upper in SECRET_VARIABLES:
        return True
    if upper.startswith("AWS_"):
        return not AWS_PLAIN.match(upper)
    return bool(SECRET.search(COUNTS.sub("", name.lower()))) and not upper.endswith(PATH_SUFFIXES)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` with `***` in place of secrets.

    These are: `secrets`, which are known; values of variables, keys, options and headers that are named like secrets;
    credentials and queries of URLs; tokens of well-known shapes; private keys.
    """
    for secret in sorted({each for each in secrets if len(each) >= MIN_SECRET}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = PRIVATE_KEY.sub(HIDDEN, text)
    text = LINE.sub(_line, text)
    text = HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = SCHEME.sub(rf"\1\2{HIDDEN}", text)
    text = hidden_in(text)
    text = ASSIGNMENT.sub(_value, text)
    text = OPTION.sub(_value, text)
    return SHAPES.sub(HIDDEN, text)


def _line(match: re.Match[str]) -> str:
    """Hide the whole value of a line of an environment: it may have blanks and quotes of any kind."""
    return f"{match['head']}{HIDDEN}" if is_secret_name(match["name"]) and match["value"].strip() else match[0]


def _value(match: re.Match[str]) -> str:
    """Hide a value, but keep its quotes, so that JSON stays valid."""
    name, value = match["name"].lstrip("-").rpartition(".")[2], match["value"]
    if not is_secret_name(name) or value in ("null", "true", "false"):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match['name']}{match['end']}{quote}{HIDDEN}{quote}"
