"""Lists that come page by page: which pages are asked for, and when it ends."""

import pytest

from orchctl.failure import Failure
from orchctl.paging import Wish, pages
from orchctl.queen import Queen
from tests.unit.orchctl.scripted_queen import error, queen, reply

LIST = {
    "GET /x?limit=2": [reply(200, {"next": "b"})],
    "GET /x?limit=2&before=b": [reply(200, {"next": "d"})],
    "GET /x?limit=2&before=d": [reply(200, {"next": None})],
    "GET /x?limit=500&kind=k": [reply(200, {})],
    "GET /x?kind=k": [reply(200, {"next": "b"})],
    "GET /x?limit=2&before=odd": [reply(200, {"next": "lost"})],
    "GET /x?limit=2&before=lost": [error(400, "INVALID_PARAMS", "before: is no task any more")],
}


@pytest.mark.parametrize(
    ("wish", "count"),
    [
        (Wish(limit=2), 1),
        (Wish(limit=2, every=True), 3),
        (Wish(limit=2, before="b"), 1),
        (Wish(limit=2, before="b", every=True), 2),
        (Wish(limit=2, before="d", every=True), 1),
    ],
)
async def test_one_page_or_all_from_there_on(wish: Wish, count: int) -> None:
    with queen(LIST) as her:
        assert len(await pages(Queen(her.url), "/x", wish)) == len(her.asked) == count


@pytest.mark.parametrize("wish", [Wish(), Wish(every=True)])
async def test_how_many_are_asked_for_is_the_queens_choice_or_for_all_the_most_she_gives(wish: Wish) -> None:
    with queen(LIST) as her:
        await pages(Queen(her.url), "/x", wish, kind="k", tag=None)
        assert [request.line for request in her.asked] == ["GET /x?limit=500&kind=k" if wish.every else "GET /x?kind=k"]


async def test_a_list_that_breaks_off_is_no_shorter_list() -> None:
    with queen(LIST) as her, pytest.raises(Failure, match="is no task any more"):
        await pages(Queen(her.url), "/x", Wish(limit=2, before="odd", every=True))
