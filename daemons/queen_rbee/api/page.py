"""Routes of the page for people: the files of folder `page`, with a plain status for browsers without JavaScript."""

from collections.abc import Callable
from pathlib import Path

import trio
from quart import Response

from llama_orch.contracts.errors import not_found
from llama_orch.http.server.routes import Reply, route
from queen_rbee.api.static_files import TYPES, UNCHANGED, File, file_response, headers_with

FOLDER = Path(__file__).parents[1] / "page"
STATUS = "<!-- status -->"
"""Where index.html gets the plain status."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Nothing from elsewhere, nothing inline, no frames, and no strings as HTML."""
FILE = Reply("The file.", {kind.partition(";")[0]: {"type": "string"} for kind in TYPES.values()}, ("ETag",))


def read_files(folder: Path) -> dict[str, File]:
    """Return the files of the page by their path below `folder`."""
    return {
        path.relative_to(folder).as_posix(): File(path.read_bytes(), TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in TYPES
    }


class PageRoutes:
    """`plain_status` returns the present state as HTML, without anything that needs a token.

    The files are read with the first request and kept: 150 KB.
    """

    def __init__(self, plain_status: Callable[[], str], folder: Path = FOLDER) -> None:
        self._plain_status = plain_status
        self._folder = folder
        self._files: dict[str, File] = {}

    @route(
        "GET",
        "/",
        "Get the page that shows the state of the queen",
        {200: Reply("The page.", {"text/html": {"type": "string"}})},
        public=True,
        description="For people with a browser. A plain status without JavaScript.",
    )
    async def get_page(self) -> Response:
        page = await self._file("index.html")
        content = page.content.decode().replace(STATUS, self._plain_status())
        return Response(content, content_type=page.type, headers=headers_with(POLICY))

    @route("GET", "/page/{file...}", "Get a file of the page", {200: FILE, 304: UNCHANGED}, public=True)
    async def get_page_file(self, file: str) -> Response:
        return file_response(await self._file(file), POLICY)

    async def _file(self, name: str) -> File:
        """Raises ApiError 404."""
        if not self._files:
            self._files = await trio.to_thread.run_sync(read_files, self._folder)
        if found := self._files.get(name):
            return found
        raise not_found("file", name, "The page is at /.")
