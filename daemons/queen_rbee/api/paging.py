"""Pages of a listing: `?limit=` and `?before=`, read the same way everywhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from quart import request

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.bodies import invalid

PAGE = 50
LARGEST_PAGE = 500


@dataclass(frozen=True)
class Page:
    """What is asked for: at most `limit` things, those behind the one with the id `before`."""

    limit: int = PAGE
    before: str | None = None


def wanted_page(problems: Iterable[tuple[str, str]] = ()) -> Page:
    """The page that Quart's current request asks for. Raises ApiError 400, which names the caller's `problems`, too."""
    limit = request.args.get("limit", str(PAGE))
    # isdigit() alone takes digits that int() does not, like a superscript two
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= LARGEST_PAGE):
        problems = [*problems, ("limit", f"must be from 1 to {LARGEST_PAGE}")]
    if wrong := [*problems]:
        raise ApiError(400, invalid(wrong))
    return Page(int(limit), request.args.get("before"))


def uuid_before(page: Page) -> UUID | None:
    """The id behind which `page` begins, where ids are UUIDs. Raises ApiError 400 where it is none."""
    try:
        return None if page.before is None else UUID(page.before)
    except ValueError as error:
        raise ApiError(400, invalid([("before", "must be a UUID")])) from error
