"""What the queen lists page by page: one page, or all of them by following `next`."""

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel

from llama_orch.contracts.base import Outbound
from llama_orch.service.exit import ExitStatus
from orchctl.failure import Failure
from orchctl.output import note, show_all
from orchctl.queen import Queen, below, understood

LARGEST_PAGE = 500

M = TypeVar("M", bound=BaseModel)


class Page(Outbound):
    """Where the following page begins, of any list."""

    next: str | None = None


async def show_pages(
    queen: Queen,
    path: str,
    options: argparse.Namespace,
    model: type[M],
    text: Callable[[Sequence[M]], str],
    **query: object,
) -> None:
    """Show what `--limit`, `--before` and `--all` ask for, each page a `model`. Raises Failure."""
    bodies = await _pages(queen, path, options, query)
    show_all(options.json, bodies, model, text)
    following = understood(Page, bodies[-1]).next
    if following is not None:
        note(f"there are more: --before {following}, or --all")


async def _pages(queen: Queen, path: str, options: argparse.Namespace, query: dict[str, object]) -> list[bytes]:
    before, seen, bodies = options.before, set[str | None](), list[bytes]()
    limit = LARGEST_PAGE if options.all and options.limit is None else options.limit
    while before not in seen:
        seen.add(before)
        bodies.append(await queen.get(below(path, limit=limit, before=before, **query)))
        before = understood(Page, bodies[-1]).next
        if before is None or not options.all:
            return bodies
    message = f"the page behind {before} was given before"
    raise Failure(message, "Is this the address of queen-rbee?", ExitStatus.UNAVAILABLE)
