"""Lists that come page by page: which pages are asked for, and when it ends."""

import pytest

from orchctl.client import QueenClient
from orchctl.errors import CommandError
from orchctl.paging import PageRange, pages
from tests.unit.orchctl.scripted_queen import error, reply, serve

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
        (PageRange(limit=2), 1),
        (PageRange(limit=2, every=True), 3),
        (PageRange(limit=2, before="b"), 1),
        (PageRange(limit=2, before="b", every=True), 2),
        (PageRange(limit=2, before="d", every=True), 1),
    ],
)
async def test_one_page_or_all_from_there_on(wish: PageRange, count: int) -> None:
    with serve(LIST) as queen:
        assert len(await pages(QueenClient(queen.url), "/x", wish)) == len(queen.asked) == count


@pytest.mark.parametrize("wish", [PageRange(), PageRange(every=True)])
async def test_how_many_are_asked_for_is_the_queens_choice_or_for_all_the_most_she_gives(wish: PageRange) -> None:
    with serve(LIST) as queen:
        await pages(QueenClient(queen.url), "/x", wish, kind="k", tag=None)
        assert [request.line for request in queen.asked] == [
            "GET /x?limit=500&kind=k" if wish.every else "GET /x?kind=k"
        ]


async def test_a_list_that_breaks_off_is_no_shorter_list() -> None:
    with serve(LIST) as queen, pytest.raises(CommandError, match="is no task any more"):
        await pages(QueenClient(queen.url), "/x", PageRange(limit=2, before="odd", every=True))
