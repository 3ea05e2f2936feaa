"""Response headers: those of every response, and those that some responses have."""

from collections.abc import Mapping

from llama_orch.http.server.error_shapes import ErrorFormat
from llama_orch.http.server.routes import Schema

Header = tuple[str, Schema, bool]
"""Description, schema, and whether a response that declares the header always has it."""

_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}

COMMON_HEADERS: Mapping[ErrorFormat, tuple[str, ...]] = {
    "own": ("X-Correlation-Id", "traceparent"),
    "openai": ("X-Correlation-Id", "X-Request-Id", "traceparent"),
    "anthropic": ("X-Correlation-Id", "Request-Id", "traceparent"),
    "ollama": ("X-Correlation-Id", "traceparent"),
}
"""The headers of every response, by the error format of the path."""
HEADERS: Mapping[str, Header] = {
    "X-Correlation-Id": (
        "The id of the request, as sent by the client or else generated. The journal field CORRELATION_ID holds it.",
        _TEXT,
        True,
    ),
    "X-Request-Id": ("The correlation id, under the name that OpenAI's clients read.", _TEXT, True),
    "Request-Id": ("The correlation id, under the name that Anthropic's clients read.", _TEXT, True),
    "traceparent": ("The W3C trace context of the request, if it had one.", _TEXT, False),
    "X-Queue-Position": ("The number of tasks ahead of this one at admission.", _COUNT, True),
    "Preference-Applied": ("The preference that is respected, as `wait=30`, if the request had one.", _TEXT, False),
    "X-Llama-Orch-Pool": ("The pool that the task runs on, once it is placed.", _TEXT, False),
    "X-Llama-Orch-Overhead-Ms": (
        "The time in milliseconds that queen-rbee added to the time to first token.",
        {"type": "number", "minimum": 0},
        False,
    ),
    "X-Budget-Tokens-Remaining": ("Tokens left in the session's budget, if it has one.", _COUNT, False),
    "X-Budget-Time-Ms-Remaining": (
        "Milliseconds of engine time left in the session's budget, if it has one.",
        _COUNT,
        False,
    ),
    "X-Budget-Cost-Remaining": (
        "Cost left in the session's budget, if it has one.",
        {"type": "number", "minimum": 0},
        False,
    ),
    "Retry-After": (
        "Seconds to wait before a retry, from measured load; absent if waiting does not help.",
        _COUNT,
        False,
    ),
    "X-Backoff-Ms": ("The same wait in milliseconds.", _COUNT, False),
    "Retry-After-Ms": (
        "The same wait in milliseconds, under the name that OpenAI's and Anthropic's clients read.",
        _COUNT,
        False,
    ),
    "X-Should-Retry": ("Whether a retry can help: `true` or `false`.", {"enum": ["true", "false"]}, True),
    "Location": ("The path of the page, relative to this one.", _TEXT, True),
    "ETag": ("Identifies the content, for `If-None-Match`.", _TEXT, True),
    "WWW-Authenticate": ("`Bearer`.", _TEXT, True),
    "Accept-Encoding": ("`gzip`.", _TEXT, True),
}
