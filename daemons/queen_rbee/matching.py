"""The replicas that meet a demand, as a view: their keys are kept, each is looked up as it is when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from queen_rbee.pools.candidates import Candidate

Key = tuple[str, str]


class Matching(Sequence[Candidate]):
    """A sequence over `known`, which goes on changing; good until other replicas are known."""

    def __init__(self, keys: Sequence[Key], known: Mapping[Key, Candidate]) -> None:
        self._keys = keys
        self._known = known

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Candidate]:
        return map(self._known.__getitem__, self._keys)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        """One, or a part of them."""
        if isinstance(index, slice):
            return Matching(self._keys[index], self._known)
        return self._known[self._keys[index]]
