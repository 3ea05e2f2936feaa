"""Routes of the manual: the HTML that the packages install as documentation, for people with a browser."""

from pathlib import Path

import trio
from quart import Response, redirect
from werkzeug.wrappers import Response as WerkzeugResponse

from llama_orch.contracts.errors import not_found
from llama_orch.http.server.routes import Reply, Schema, route
from queen_rbee.api.static_files import TYPES, UNCHANGED, File, file_response

FOLDERS = (Path(__file__).parents[3] / "build/html", Path("/usr/share/doc/llama-orch/html"))
"""Where `make html` of a source tree writes the manual, and where the packages install it."""
INDEX = "index.html"
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""One style sheet, and nothing else."""
CONTENT: Schema = {"type": "string"}
PAGE = Reply("The page, or the style sheet.", {"text/html": CONTENT, "text/css": CONTENT}, ("ETag",))
ABSENT_HINT = "Read it with man llama-orch. In a source tree, make html makes it."


def read_table(folders: tuple[Path, ...] = FOLDERS) -> dict[str, Path]:
    """Return the files of the first folder with a manual, by their name; empty if none has one."""
    for folder in folders:
        found = {path.name: path for path in folder.glob("*") if path.suffix in TYPES}
        if INDEX in found:
            return found
    return {}


class ManualRoutes:
    """Serves the files whose names are in `folders` when it is made, and no other path.

    They need no token, like the files of the page: everybody has them who has the package.
    """

    def __init__(self, folders: tuple[Path, ...] = FOLDERS) -> None:
        self._table = read_table(folders)

    @route("GET", "/docs", "Go to the manual", {302: Reply("It is at /docs/.", headers=("Location",))}, public=True)
    async def go_to_manual(self) -> WerkzeugResponse:
        return redirect("docs/")

    @route("GET", "/docs/", "Get the index of the manual", {200: PAGE, 304: UNCHANGED}, public=True)
    async def get_manual(self) -> Response:
        return await self._answer(INDEX)

    @route(
        "GET",
        "/docs/{page}",
        "Get a page of the manual",
        {200: PAGE, 304: UNCHANGED},
        public=True,
        description="The pages are named as in `orchctl.1.html`. 404 if the documentation is not installed.",
    )
    async def get_manual_page(self, page: str) -> Response:
        return await self._answer(page)

    async def _answer(self, name: str) -> Response:
        """Raises ApiError 404."""
        return file_response(await self._file(name), POLICY)

    async def _file(self, name: str) -> File:
        """Raises ApiError 404."""
        if not self._table:
            raise not_found("manual page", name, f"The manual is not installed here. {ABSENT_HINT}")
        path = self._table.get(name)
        if path is None:
            raise not_found("manual page", name, f"The pages are listed in /docs/{INDEX}.")
        try:
            return File(await trio.Path(path).read_bytes(), TYPES[path.suffix])
        except OSError as error:
            raise not_found("manual page", name, f"{path}: {error.strerror}. {ABSENT_HINT}") from error
