"""The headers of answers: those that every answer has, and those that some have."""

from collections.abc import Mapping

from llama_orch.http.server.error_shapes import ErrorFormat
from queen_rbee.api.openapi.operation import Schema

Header = tuple[str, Schema, bool]
"""What it says, its schema, and whether an answer that is described with it always has it."""

_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}

EVERYWHERE: Mapping[ErrorFormat, tuple[str, ...]] = {
    "own": ("X-Correlation-Id", "traceparent"),
    "openai": ("X-Correlation-Id", "X-Request-Id", "traceparent"),
    "anthropic": ("X-Correlation-Id", "Request-Id", "traceparent"),
}
"""What each answer to a client of each shape has."""
BUDGETS = ("X-Budget-Tokens-Remaining", "X-Budget-Time-Ms-Remaining", "X-Budget-Cost-Remaining")
PLACE = ("X-Llama-Orch-Pool", "X-Llama-Orch-Overhead-Ms")
HEADERS: Mapping[str, Header] = {
    "X-Correlation-Id": ("The request's own, or one made for it; the journal has it as CORRELATION_ID.", _TEXT, True),
    "X-Request-Id": ("The same, under the name that OpenAI's clients know.", _TEXT, True),
    "Request-Id": ("The same, under the name that Anthropic's clients know.", _TEXT, True),
    "traceparent": ("The request's W3C trace context, if it had one.", _TEXT, False),
    "X-Queue-Position": ("How many tasks went before this one when it was admitted.", _COUNT, True),
    "X-Llama-Orch-Pool": ("The pool that the task runs on, once it has one.", _TEXT, False),
    "X-Llama-Orch-Overhead-Ms": (
        "What the queen herself added to the time of the first token.",
        {"type": "number", "minimum": 0},
        False,
    ),
    "X-Budget-Tokens-Remaining": ("Tokens that the session may still use, if it has such a budget.", _COUNT, False),
    "X-Budget-Time-Ms-Remaining": ("Milliseconds of engine time, likewise.", _COUNT, False),
    "X-Budget-Cost-Remaining": ("Cost, likewise.", {"type": "number", "minimum": 0}, False),
    "Retry-After": ("Seconds after which a new try has a chance, measured; where waiting helps.", _COUNT, False),
    "X-Backoff-Ms": ("The same in milliseconds.", _COUNT, False),
    "Retry-After-Ms": ("The same, under the name that OpenAI's and Anthropic's clients know.", _COUNT, False),
    "X-Should-Retry": ("Whether trying again helps: `true` or `false`.", {"enum": ["true", "false"]}, True),
    "WWW-Authenticate": ("`Bearer`.", _TEXT, True),
    "Accept-Encoding": ("`gzip`.", _TEXT, True),
}
