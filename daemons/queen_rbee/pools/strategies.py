"""Placement strategies: how one replica is chosen among those that meet a task's demand.

To add a strategy, write its function and register it in STRATEGIES. The choices, the validation and the manual page of
ORCHESTRATORD_PLACEMENT_STRATEGY follow from that table.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from queen_rbee.pools.candidates import Candidate

Choose = Callable[[Sequence[Candidate], int], Candidate | None]
"""Choose a replica that is open from a non-empty sequence sorted by key, some of which may be busy; None if all are.

The integer counts placements.
"""


@dataclass(frozen=True)
class PlacementStrategy:
    """A strategy; `description` completes the sentence "NAME takes ..." in the manual page."""

    choose: Choose
    description: str


def round_robin(candidates: Sequence[Candidate], turn: int) -> Candidate | None:
    return _first_open(candidates, turn)


def least_loaded(candidates: Sequence[Candidate], _turn: int) -> Candidate | None:
    open_replicas = (candidate for candidate in candidates if candidate.open)
    return min(open_replicas, key=lambda c: (-c.vram_free_bytes, c.leased, c.key), default=None)


def uniform_random(candidates: Sequence[Candidate], turn: int) -> Candidate | None:
    """Seeded with `turn`, so that a placement can be reproduced."""
    start = random.Random(turn).randrange(len(candidates))  # noqa: S311 -- spreads load, not a security feature
    return _first_open(candidates, start)


def _first_open(candidates: Sequence[Candidate], start: int) -> Candidate | None:
    rotated = (candidates[(start + step) % len(candidates)] for step in range(len(candidates)))
    return next((candidate for candidate in rotated if candidate.open), None)


STRATEGIES: dict[str, PlacementStrategy] = {
    "round-robin": PlacementStrategy(round_robin, "each replica in turn"),
    "least-loaded": PlacementStrategy(
        least_loaded, "the replica with the most free GPU memory, then the one with the fewest busy slots"
    ),
    "random": PlacementStrategy(uniform_random, "any replica with equal probability"),
}


def strategy_names() -> Any:
    """Return the Literal type of all names in STRATEGIES."""
    return Literal[tuple(STRATEGIES)]


def descriptions() -> str:
    """Return one sentence per strategy, for the manual page."""
    return " ".join(f"{name} takes {strategy.description}." for name, strategy in STRATEGIES.items())


if TYPE_CHECKING:
    StrategyName = str
else:
    StrategyName = strategy_names()
    """A key of STRATEGIES. pydantic and the settings declarations take the allowed values from this type."""
