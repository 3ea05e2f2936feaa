"""Lists that the queen returns in pages: one page, or all of them by following `next`."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from llama_orch.contracts.base import Outbound
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.errors import ADDRESS_HINT, CommandError
from orchctl.lists import print_list
from orchctl.output import print_note

MAX_PAGE_SIZE = 500

M = TypeVar("M", bound=BaseModel)


class PageLink(Outbound):
    """The part that all paged lists have: the id after which the next page starts."""

    next: str | None = None


@dataclass(frozen=True)
class PageRange:
    """Which part of a list to fetch: the page of at most `limit` entries after the entry `before`, or `all_pages`.

    Without `limit` the queen chooses the page size; with `all_pages` it is MAX_PAGE_SIZE.
    """

    limit: int | None = None
    before: str | None = None
    all_pages: bool = False


async def print_pages(
    queen: QueenClient,
    path: str,
    options: argparse.Namespace,
    model: type[M],
    text: Callable[[Sequence[M]], str],
    names: Callable[[M], Iterable[str]],
    **query: object,
) -> None:
    """Print the pages selected by --limit, --before and --all, each a `model` with `names`. Raises CommandError."""
    bodies = await fetch_pages(queen, path, PageRange(options.limit, options.before, options.all), **query)
    print_list(options, bodies, model, text, names)
    following = parse_response(PageLink, bodies[-1]).next
    if following is not None:
        print_note(f"more entries: use --before {following}, or --all")


async def fetch_pages(queen: QueenClient, path: str, pages: PageRange, **query: object) -> list[bytes]:
    """Fetch at least one page of the list at `path`. Raises CommandError."""
    before, seen, bodies = pages.before, set[str | None](), list[bytes]()
    limit = MAX_PAGE_SIZE if pages.all_pages and pages.limit is None else pages.limit
    while before not in seen:
        seen.add(before)
        bodies.append(await queen.get(build_path(path, limit=limit, before=before, **query)))
        before = parse_response(PageLink, bodies[-1]).next
        if before is None or not pages.all_pages:
            return bodies
    raise CommandError(f"the list repeats: next={before} was sent twice", ADDRESS_HINT, ExitStatus.UNAVAILABLE)
