"""Bookkeeping of the parts of a file that are on disk. Pure.

A span is (start, end) in bytes, the end excluded. `Spans` are sorted, not empty and do not touch each other.
"""

from collections.abc import Iterable, Sequence

Span = tuple[int, int]
Spans = tuple[Span, ...]


def merged(spans: Iterable[Span]) -> Spans:
    """Return the union of `spans`, which may overlap, in any order."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def size_of(spans: Spans) -> int:
    """Return the number of bytes in `spans`."""
    return sum(end - start for start, end in spans)


def prefix(spans: Spans) -> int:
    """Return how many bytes are there without a gap from the beginning of the file."""
    return spans[0][1] if spans and spans[0][0] == 0 else 0


def missing(spans: Spans, size: int) -> Spans:
    """Return the gaps in a file of `size` bytes."""
    edges = [0, *(edge for span in spans for edge in span), size]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def next_piece(done: Spans, claimed: Sequence[Span], size: int, limit: int) -> Span | None:
    """Return the first at most `limit` bytes that are neither done nor claimed, None if there are none."""
    for start, end in missing(merged((*done, *claimed)), size):
        return start, min(end, start + limit)
    return None
