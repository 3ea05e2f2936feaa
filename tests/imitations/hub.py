"""An imitation of the Hugging Face hub: revisions, file lists, and files that a second server delivers.

`python -m tests.imitations.hub ROOT [BYTES_PER_S [PORT]]` serves the repositories below ROOT and prints its URL.
"""

import hashlib
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.imitations.web_server import Reply, Request, WebServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories ORG/REPO, each a directory below `root`. With `token`, every request needs it.

    `storage` delivers the files; requests to it must not have the token.
    """

    def __init__(self, root: Path, token: str | None = None, rate: int = 0) -> None:
        """`rate` limits each delivery, in bytes/s; 0 is no limit."""
        self.root = root
        self.token = token
        self.gated: set[str] = set()
        self.commit = COMMIT
        self.front = WebServer(self._answer)
        self.storage = WebServer(self._deliver, rate)
        self.delivery: str | None = None
        """The base URL that files are redirected to, if not that of `storage`."""
        self._digests: dict[Path, str] = {}

    @property
    def url(self) -> str:
        """The value of HF_ENDPOINT."""
        return self.front.url

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["Hub"]:
        """Serve on `port`, or on a free one, for the duration of the block."""
        async with self.front.serving(port), self.storage.serving():
            yield self

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file, which must not change."""
        if path not in self._digests:
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[path]

    async def _answer(self, request: Request) -> Reply:
        match = re.fullmatch(
            r"/(?P<api>api/models/)?(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree|resolve)/(?P<revision>[^/]+)/?(?P<path>.*)",
            request.path,
        )
        if match is None or not (self.root / match["repo"]).is_dir():
            return error(404 if self._authorized(request) else 401, "RepoNotFound")
        if not self._authorized(request):
            return error(401, "GatedRepo")
        if match["repo"] in self.gated:
            return error(403, "GatedRepo")
        if match["revision"] not in ("main", self.commit):
            return error(404, "RevisionNotFound")
        directory = self.root / match["repo"]
        if match["what"] == "revision":
            return document({"id": match["repo"], "sha": self.commit})
        if match["what"] == "tree":
            return document([self._entry(directory, path) for path in sorted(directory.rglob("*")) if path.is_file()])
        path = directory / match["path"]
        if not path.is_file():
            return error(404, "EntryNotFound")
        headers = {"x-repo-commit": self.commit, "x-linked-etag": f'"{self.digest(path)}"'}
        delivery = self.delivery or self.storage.url
        return Reply(302, headers={**headers, "location": f"{delivery}/{match['repo']}/{match['path']}"})

    def _entry(self, directory: Path, path: Path) -> dict[str, object]:
        size, digest = path.stat().st_size, self.digest(path)
        name = path.relative_to(directory).as_posix()
        return {"type": "file", "path": name, "size": size, "oid": digest[:40], "lfs": {"oid": digest, "size": size}}

    def _authorized(self, request: Request) -> bool:
        return self.token is None or request.headers.get("authorization") == f"Bearer {self.token}"

    async def _deliver(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return Reply(400, b"the token must not be sent here")
        path = self.root / request.path.lstrip("/")
        return Reply(200, path, {"etag": f'"{self.digest(path)}"', "accept-ranges": "bytes"})


def error(status: int, code: str) -> Reply:
    """Return an answer with the hub's X-Error-Code."""
    return Reply(status, b"{}", {"x-error-code": code})


def document(content: object) -> Reply:
    """Return an answer with JSON."""
    return Reply(200, json.dumps(content).encode(), {"content-type": "application/json"})


async def main() -> None:
    """Serve until the process is killed."""
    root, *numbers = sys.argv[1:]
    rate, port = (*map(int, numbers), 0, 0)[:2]
    async with Hub(Path(root), rate=rate).serving(port) as hub:
        print(hub.url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
