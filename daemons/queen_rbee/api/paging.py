"""Pagination of listings by `?limit=` and `?before=`."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from quart import request

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.bodies import invalid

PAGE = 50
LARGEST_PAGE = 500


@dataclass(frozen=True)
class PageRequest:
    """At most `limit` entries, starting after the entry with the id `before`."""

    limit: int = PAGE
    before: str | None = None


def requested_page(problems: Iterable[tuple[str, str]] = ()) -> PageRequest:
    """Return the page that Quart's current request asks for.

    Raises ApiError 400, which also lists `problems` that the caller has found in other parameters.
    """
    limit = request.args.get("limit", str(PAGE))
    # isdigit() alone accepts digits that int() does not, such as a superscript two
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= LARGEST_PAGE):
        problems = [*problems, ("limit", f"must be from 1 to {LARGEST_PAGE}")]
    if problems := [*problems]:
        raise ApiError(400, invalid(problems))
    return PageRequest(int(limit), request.args.get("before"))


def before_as_uuid(page: PageRequest) -> UUID | None:
    """Return `page.before` of a listing whose ids are UUIDs. Raises ApiError 400."""
    try:
        return None if page.before is None else UUID(page.before)
    except ValueError as error:
        raise ApiError(400, invalid([("before", "must be a UUID")])) from error
