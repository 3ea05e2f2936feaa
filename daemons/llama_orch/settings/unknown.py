"""Variables with a prefix of ours that no daemon knows: probably misspelt, so that what was meant has no effect."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from llama_orch.settings.suite import VARIABLES

PREFIXES = ("ORCHESTRATOR", "ORCHD", "POOL_MANAGER", "ENGINE_PROVISION", "LLORCH", "LLAMA_ORCH")
"""Shorter than the real ones, so that ORCHESTRATOR_URL or POOL_MANAGER_NODE_ID are noticed, too."""


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Each such variable that is set in `environ`, with the known one that is nearest to it; values are not shown."""
    for name in sorted(environ):
        if name.startswith(PREFIXES) and name not in VARIABLES and environ[name]:
            nearest = get_close_matches(name, VARIABLES, n=1)
            yield f"{name} (is {nearest[0]} meant?)" if nearest else name
