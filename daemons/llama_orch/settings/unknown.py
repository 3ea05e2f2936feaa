"""Find variables with a prefix of llama-orch that no daemon knows, which are probably misspelt."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from llama_orch.settings.suite import VARIABLES

PREFIXES = ("ORCHESTRATOR", "ORCHD", "POOL_MANAGER", "ENGINE_PROVISION", "LLORCH", "LLAMA_ORCH")
"""Shorter than the real prefixes, to catch ORCHESTRATOR_URL or POOL_MANAGER_NODE_ID as well."""


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield each unknown variable in `environ`, with the most similar known one. Values are not shown."""
    for name in sorted(environ):
        if name.startswith(PREFIXES) and name not in VARIABLES and environ[name]:
            nearest = get_close_matches(name, VARIABLES, n=1)
            yield f"{name} (did you mean {nearest[0]}?)" if nearest else name
