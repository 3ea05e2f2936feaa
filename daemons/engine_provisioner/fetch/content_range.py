"""The headers of an answer that say which part of which version of a file it has (RFC 9110, 8.8 and 14.4)."""

import re
from collections.abc import Mapping


def content_span(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return the part that a Content-Range names, its end excluded; (-1, -1) if it is malformed."""
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)", headers.get("content-range", ""))
    return (int(match[1]), int(match[2]) + 1) if match else (-1, -1)


def content_total(headers: Mapping[str, str]) -> int | None:
    """Return the size of the whole file that a Content-Range names."""
    match = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d{1,18})", headers.get("content-range", ""))
    return int(match[1]) if match else None


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """Return a value that identifies the file's version: a strong ETag, else Last-Modified."""
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified") or None
