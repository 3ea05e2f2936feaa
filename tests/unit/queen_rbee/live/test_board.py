"""What a viewer gets is what has changed since it looked last."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.live.board import Board, Change, Seen

KEYS = st.sampled_from("abcd")
DOCUMENTS = st.dictionaries(KEYS, st.sampled_from(["1", "2"]))


def test_first_look_shows_every_section() -> None:
    board = Board()
    board.put("pools", {"a": "1"})
    board.put("tasks", {})
    assert [*board.changes(Seen())] == [Change("pools", {"a": "1"}), Change("tasks", {})]


def test_unchanged_section_is_not_sent_again() -> None:
    board, seen = Board(), Seen()
    board.put("pools", {"a": "1", "b": "1"})
    assert [*board.changes(seen)]
    board.put("pools", {"a": "1", "b": "1"})
    assert [*board.changes(seen)] == []
    board.put("pools", {"a": "1", "b": "2"})
    assert [*board.changes(seen)] == [Change("pools", {"b": "2"})]
    board.put("pools", {"b": "2"})
    assert [*board.changes(seen)] == [Change("pools", {}, ("a",))]


@given(st.lists(st.tuples(DOCUMENTS, st.booleans(), st.booleans())))
def test_viewers_that_look_at_any_time_see_the_same(states: list[tuple[dict[str, str], bool, bool]]) -> None:
    board = Board()
    viewers: list[tuple[Seen, dict[str, str]]] = [(Seen(), {}), (Seen(), {})]

    def look(viewer: int) -> None:
        seen, shown = viewers[viewer]
        for change in board.changes(seen):
            shown.update(change.documents)
            for key in change.gone:
                del shown[key]

    for documents, *looks in states:
        board.put("pools", documents)
        for viewer in (0, 1):
            if looks[viewer]:
                look(viewer)
                assert viewers[viewer][1] == documents
    for viewer in (0, 1):
        look(viewer)
    assert viewers[0][1] == viewers[1][1] == (states[-1][0] if states else {})
