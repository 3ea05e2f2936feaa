"""The owner of a stored task: it is kept with the request, as a member that no client can send. Pure functions."""

import json
import re

MEMBER = "llama_orch_key"
_FIRST = re.compile(rf'\{{"{MEMBER}":("[^"\\]*"),?')


def with_owner(request: str, owner: str | None) -> str:
    """Return `request`, a TaskRequest as compact JSON, with the name of the key that it belongs to."""
    if owner is None:
        return request
    rest = request.removeprefix("{")
    return f'{{"{MEMBER}":{json.dumps(owner)}{"" if rest == "}" else ","}{rest}'


def owner_of(stored: str) -> tuple[str | None, str]:
    """Return the owner of a stored request, and the request."""
    match = _FIRST.match(stored)
    return (json.loads(match[1]), "{" + stored[match.end() :]) if match else (None, stored)
