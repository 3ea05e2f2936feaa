"""Every byte of a file is either on disk, claimed by one connection, or still to be claimed."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.fetch.spans import Spans, merged, missing, next_piece, prefix, size_of

SIZE = 60
PIECES = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)))


def positions(spans: Spans) -> set[int]:
    return {position for start, end in spans for position in range(start, end)}


@given(PIECES)
def test_merged_spans_are_sorted_apart_and_the_same_bytes(pieces: list[tuple[int, int]]) -> None:
    spans = merged(pieces)
    assert positions(spans) == positions(tuple(pieces))
    assert all(start < end for start, end in spans)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
    assert size_of(spans) == len(positions(spans))


@given(PIECES)
def test_missing_is_the_rest_of_the_file(pieces: list[tuple[int, int]]) -> None:
    spans = merged(pieces)
    gaps = missing(spans, SIZE)
    assert positions(gaps) == set(range(SIZE)) - positions(spans)
    assert merged(gaps) == gaps


@given(PIECES)
def test_prefix_ends_at_the_first_missing_byte(pieces: list[tuple[int, int]]) -> None:
    spans = merged(pieces)
    assert prefix(spans) == next((i for i in range(SIZE) if i not in positions(spans)), SIZE)


@given(PIECES, PIECES, st.integers(1, 20))
def test_next_piece_is_the_first_that_nobody_has(
    done: list[tuple[int, int]], claimed: list[tuple[int, int]], limit: int
) -> None:
    piece = next_piece(merged(done), claimed, SIZE, limit)
    free = sorted(set(range(SIZE)) - positions(tuple(done)) - positions(tuple(claimed)))
    if piece is None:
        assert free == []
    else:
        assert piece[0] == free[0]
        assert positions((piece,)) <= set(free)
        assert 1 <= piece[1] - piece[0] <= limit


@given(st.integers(1, 500), st.integers(1, 90), st.integers(1, 6), st.integers())
def test_connections_that_break_anywhere_download_each_byte_once(
    size: int, limit: int, workers: int, seed: int
) -> None:
    chance = random.Random(seed)
    done: Spans = ()
    claims: list[list[int]] = []
    received = [0] * size
    while size_of(done) < size:
        while len(claims) < workers and (piece := next_piece(done, [(a, b) for a, b in claims], size, limit)):
            claims.append(list(piece))
        claim = chance.choice(claims)
        count = chance.randint(0, claim[1] - claim[0])  # what arrives until the connection breaks
        for position in range(claim[0], claim[0] + count):
            received[position] += 1
        done = merged((*done, (claim[0], claim[0] + count)))
        claim[0] += count
        claims = [each for each in claims if each[0] < each[1]]
    assert received == [1] * size
