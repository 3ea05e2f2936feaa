"""What is logged of tokens that were refused: whose, from where, and at most a line a peer and minute."""

from collections.abc import Iterable

import trio

from llama_orch.settings.types import Secret
from llama_orch.telemetry.events import TOKEN_REFUSED
from llama_orch.telemetry.records import emit

INTERVAL_S = 60.0
PEERS = 64
"""Lines a minute at most, whoever tries."""


class WrongTokens:
    """Remembers when a peer was last logged, for a minute."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def refused(self, peer: str, shown: Iterable[str]) -> None:
        """Log, unless it was a short time ago, that `peer` has shown these wrong tokens; none: something else."""
        now = trio.current_time()
        self._logged = {known: since for known, since in self._logged.items() if now - since < INTERVAL_S}
        if peer in self._logged or len(self._logged) >= PEERS:
            return
        self._logged[peer] = now
        emit(TOKEN_REFUSED, peer=peer, shown=", ".join(str(Secret(token)) for token in shown) or "no Bearer token")
