"""Server errors that are the request's fault.

Such a request fails on every replica, however often it is retried, so that its client gets 400 and nothing counts
against the replica. Each kind of engine declares its patterns, which are searched in the engine's message. Those that
begin with `^` would otherwise match what the message quotes of the request.
"""

import re
from dataclasses import replace

from llama_orch.contracts.errors import Reason
from llama_orch.engines.wire.adapter import EngineRefusal, ErrorPattern, ErrorPatterns


def pattern(words: str, reason: Reason | None = None) -> ErrorPattern:
    return ErrorPattern(re.compile(words, re.DOTALL), reason)


def classified(refusal: EngineRefusal, patterns: ErrorPatterns) -> EngineRefusal:
    """Return `refusal`, as the client's fault if its message matches one of `patterns`."""
    if refusal.client_fault or refusal.busy:
        return refusal
    match = next((each for each in patterns if each.words.search(refusal.message)), None)
    return replace(refusal, client_fault=True, gone=False, reason=match.reason or refusal.reason) if match else refusal
