"""Files for people with a browser, sent with headers that let it use nothing from elsewhere."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from quart import Response, request

from llama_orch.http.server.routes import Reply

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Only files with these extensions are served."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # a browser asks each time whether a file has changed: the modules of two releases are never mixed
    "Cache-Control": "no-cache",
}
UNCHANGED = Reply("The file has not changed.")


@dataclass(frozen=True)
class File:
    content: bytes
    type: str

    @cached_property
    def etag(self) -> str:
        return sha256(self.content).hexdigest()[:32]


def headers_with(policy: str) -> dict[str, str]:
    """Return the headers of a file with this Content-Security-Policy."""
    return {"Content-Security-Policy": policy, **HEADERS}


def file_response(file: File, policy: str) -> Response:
    """Return the file, or 304 if the client has it."""
    headers = {**headers_with(policy), "ETag": f'"{file.etag}"'}
    if file.etag in request.if_none_match:
        return Response("", status=304, headers=headers)
    return Response(file.content, content_type=file.type, headers=headers)
