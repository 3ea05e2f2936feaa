"""What the queen lists page by page: one page, or all of them by following `next`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from llama_orch.contracts.base import Outbound
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below, understood
from orchctl.errors import CommandError
from orchctl.output import note, show_all

LARGEST_PAGE = 500

M = TypeVar("M", bound=BaseModel)


class PageLink(Outbound):
    """Where the following page begins, of any list."""

    next: str | None = None


@dataclass(frozen=True)
class PageRange:
    """Which part of a list: from behind the thing `before` on, `limit` of it or `every` one, `limit` at a time."""

    limit: int | None = None
    before: str | None = None
    every: bool = False


async def show_pages(
    queen: QueenClient,
    path: str,
    options: argparse.Namespace,
    model: type[M],
    text: Callable[[Sequence[M]], str],
    **query: object,
) -> None:
    """Show what `--limit`, `--before` and `--all` ask for, each page a `model`. Raises CommandError."""
    bodies = await pages(queen, path, PageRange(options.limit, options.before, options.all), **query)
    show_all(options.json, bodies, model, text)
    following = understood(PageLink, bodies[-1]).next
    if following is not None:
        note(f"there are more: --before {following}, or --all")


async def pages(queen: QueenClient, path: str, wish: PageRange, **query: object) -> list[bytes]:
    """The pages of the list at `path`, at least one. Raises CommandError."""
    before, seen, bodies = wish.before, set[str | None](), list[bytes]()
    limit = LARGEST_PAGE if wish.every and wish.limit is None else wish.limit
    while before not in seen:
        seen.add(before)
        bodies.append(await queen.get(below(path, limit=limit, before=before, **query)))
        before = understood(PageLink, bodies[-1]).next
        if before is None or not wish.every:
            return bodies
    message = f"the page behind {before} was given before"
    raise CommandError(message, "Is this the address of queen-rbee?", ExitStatus.UNAVAILABLE)
