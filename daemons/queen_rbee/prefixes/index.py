"""Which replicas computed which prompts lately, by the hashes of their blocks: bounded tables without I/O."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from queen_rbee.pools.candidates import ReplicaKey
from queen_rbee.prefixes.blocks import Prompt

BLOCKS_KNOWN = 32_768
"""Blocks that are remembered, those used last: 8 MB at most."""
CONVERSATIONS_KNOWN = 4096
REPLICAS_PER_BLOCK = 8
MEMORY_S = 1800.0
"""A prompt computed longer ago than this has probably left the engine's cache."""

Computed = tuple[ReplicaKey, float]
"""A replica, and when it computed a block, on trio's clock."""


@dataclass(frozen=True)
class Matches:
    """How many characters of a prompt each replica has computed, if any, and the replica that has its last turn."""

    lengths: Mapping[ReplicaKey, int]
    home: ReplicaKey | None


class PrefixIndex:
    """Written at each placement, so that prompts that come together find each other."""

    def __init__(self, blocks_known: int = BLOCKS_KNOWN, conversations_known: int = CONVERSATIONS_KNOWN) -> None:
        self._blocks_known = blocks_known
        self._conversations_known = conversations_known
        self._blocks: dict[int, tuple[Computed, ...]] = {}
        """By the hash of a block; the one used longest ago first."""
        self._turns: dict[int, Computed] = {}
        """The last turn of each conversation, by the hash of its last block; the oldest first."""
        self._restarted: dict[ReplicaKey, float] = {}
        """Replicas that have started, with the time of the last record before."""
        self._last = -math.inf
        self.conversations: Counter[ReplicaKey] = Counter()
        """How many conversations had their last turn on each replica."""

    def record(self, prompt: Prompt, replica: ReplicaKey, now: float) -> None:
        """Note that `replica` computes a prompt."""
        self._last = now
        # Without the first blocks the last ones are never found, so the last ones are dropped first.
        for block in reversed(prompt.chain):
            self._record_block(block, replica, now)
        if prompt.hint is not None:
            self._record_block(prompt.hint, replica, now)
        while len(self._blocks) > self._blocks_known:
            del self._blocks[next(iter(self._blocks))]
        if prompt.chain:
            if (last_turn := self._last_turn(prompt)) is not None:
                self._end_turn(last_turn)
            self._turns[prompt.chain[-1]] = replica, now
            self.conversations[replica] += 1
            self._forget_old_turns(now)

    def matches(self, prompt: Prompt, now: float) -> Matches:
        """Return what is known of a prompt's beginning. The same hint counts as one character."""
        lengths: dict[ReplicaKey, int] = {}
        for block, end in zip(prompt.chain, prompt.ends, strict=True):
            if not (found := self._blocks.get(block)):
                break
            lengths |= dict.fromkeys(self._valid(found, now), end)
        if prompt.hint is not None:
            for replica in self._valid(self._blocks.get(prompt.hint, ()), now):
                lengths.setdefault(replica, 1)
        last_turn = self._last_turn(prompt)
        return Matches(lengths, None if last_turn is None else self._turns[last_turn][0])

    def forget(self, replica: ReplicaKey) -> None:
        """Note that a replica has started: what it computed before is not in its cache."""
        self._restarted = {key: at for key, at in self._restarted.items() if at > self._last - MEMORY_S}
        self._restarted[replica] = self._last
        for turn in [turn for turn, (where, _at) in self._turns.items() if where == replica]:
            self._end_turn(turn)

    def _record_block(self, block: int, replica: ReplicaKey, now: float) -> None:
        others = [computed for computed in self._blocks.pop(block, ()) if computed[0] != replica]
        self._blocks[block] = ((replica, now), *others[: REPLICAS_PER_BLOCK - 1])

    def _valid(self, found: tuple[Computed, ...], now: float) -> list[ReplicaKey]:
        oldest = now - MEMORY_S
        return [key for key, at in found if at > max(oldest, self._restarted.get(key, oldest))]

    def _last_turn(self, prompt: Prompt) -> int | None:
        return next((block for block in reversed(prompt.chain) if block in self._turns), None)

    def _end_turn(self, turn: int) -> None:
        replica, _at = self._turns.pop(turn)
        self.conversations[replica] -= 1
        if not self.conversations[replica]:
            del self.conversations[replica]

    def _forget_old_turns(self, now: float) -> None:
        while self._turns:
            oldest = next(iter(self._turns))
            if len(self._turns) <= self._conversations_known and self._turns[oldest][1] > now - MEMORY_S:
                return
            self._end_turn(oldest)
