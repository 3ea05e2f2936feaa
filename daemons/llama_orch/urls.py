"""URLs as messages, records and files on a screen may show them."""

import re
from urllib.parse import urlsplit

HIDDEN = "***"
URL = re.compile(
    r"""(?P<scheme>\b[a-z][a-z0-9+.-]{0,31}://)(?P<host>[^\s"'`/?#]*)(?P<path>[^\s"'`?#]*)(?P<rest>[^\s"'`]*)""", re.I
)


def without_secrets(url: str) -> str:
    """Return `url` without credentials, query and fragment, which may be secret; a local path as it is."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http"):
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def hidden_in(text: str) -> str:
    """Return `text` with `***` in place of the credentials, query and fragment of each URL in it."""
    return URL.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    credentials, at, host = match["host"].rpartition("@")
    rest = match["rest"][:1] + HIDDEN if match["rest"] else ""
    return f"{match['scheme']}{HIDDEN if credentials or at else ''}{at}{host}{match['path']}{rest}"
