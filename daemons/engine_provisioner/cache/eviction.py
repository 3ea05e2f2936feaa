"""Which models to remove to make room: the least recently used ones, and no more than needed. Pure."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Candidate:
    """A model that may be removed, unless it is `protected`: pinned, in use, or just fetched.

    `blobs` are its files with their bytes. A file that several models share is freed with the last of them.
    """

    key: str
    used_at: datetime
    protected: bool
    blobs: Mapping[Hashable, int]


def freed_by(keys: Iterable[str], models: Sequence[Candidate]) -> int:
    """Return the bytes that are freed if all of `keys` are removed, out of `models`."""
    chosen = set(keys)
    holders = Counter(blob for model in models if model.key not in chosen for blob in model.blobs)
    freed = {blob: size for model in models if model.key in chosen for blob, size in model.blobs.items()}
    return sum(size for blob, size in freed.items() if not holders[blob])


def choose(models: Sequence[Candidate], needed: int) -> tuple[str, ...] | None:
    """Return the keys of models whose removal frees `needed` bytes; None if all together would not free enough.

    The least recently used are chosen first. Without any one of the chosen, too little would be freed.
    """
    removable = sorted((model for model in models if not model.protected), key=lambda model: model.used_at)
    chosen: list[str] = []
    for model in removable:
        if freed_by(chosen, models) >= needed:
            break
        chosen.append(model.key)
    if freed_by(chosen, models) < needed:
        return None
    for key in reversed(chosen.copy()):
        rest = [other for other in chosen if other != key]
        if freed_by(rest, models) >= needed:
            chosen = rest
    return tuple(chosen)
