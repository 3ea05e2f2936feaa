"""Paged lists: which pages are fetched, and when fetching ends."""

import pytest

from orchctl.client import QueenClient
from orchctl.errors import CommandError
from orchctl.paging import PageRange, fetch_pages
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
    ("pages", "count"),
    [
        (PageRange(limit=2), 1),
        (PageRange(limit=2, all_pages=True), 3),
        (PageRange(limit=2, before="b"), 1),
        (PageRange(limit=2, before="b", all_pages=True), 2),
        (PageRange(limit=2, before="d", all_pages=True), 1),
    ],
)
async def test_one_page_or_all_following_pages(pages: PageRange, count: int) -> None:
    with serve(LIST) as queen:
        assert len(await fetch_pages(QueenClient(queen.url), "/x", pages)) == len(queen.requests) == count


@pytest.mark.parametrize("pages", [PageRange(), PageRange(all_pages=True)])
async def test_default_limit_is_queens_but_500_with_all(pages: PageRange) -> None:
    with serve(LIST) as queen:
        await fetch_pages(QueenClient(queen.url), "/x", pages, kind="k", tag=None)
        assert [request.line for request in queen.requests] == [
            "GET /x?limit=500&kind=k" if pages.all_pages else "GET /x?kind=k"
        ]


async def test_error_of_a_page_fails_the_whole_list() -> None:
    with serve(LIST) as queen, pytest.raises(CommandError, match="is no task any more"):
        await fetch_pages(QueenClient(queen.url), "/x", PageRange(limit=2, before="odd", all_pages=True))
