"""An imitation of a container registry with tokens: its blobs are delivered by a second server, like Docker Hub's."""

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.imitations.web_server import Reply, Request, WebServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class TokenRegistry:
    """Serves the repository org/model. `login`: USER:PASSWORD that the token service asks for; None: anybody.

    A token is good for `token_uses` requests.
    """

    def __init__(self, files: dict[str, Path], login: str | None = None, token_uses: int = 1000) -> None:
        """`files`: the layers by media type."""
        self.login = login
        self.token_uses = token_uses
        self.tokens: dict[str, int] = {}
        self.front = WebServer(self._answer)
        self.storage = WebServer(self._deliver)
        self._blobs = {f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}": path for path in files.values()}
        layers = [
            {"mediaType": kind, "digest": digest, "size": path.stat().st_size}
            for kind, (digest, path) in zip(files, self._blobs.items(), strict=True)
        ]
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}).encode()

    @property
    def host(self) -> str:
        """Host and port for references."""
        return f"127.0.0.1:{self.front.port}"

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["TokenRegistry"]:
        """Serve on free ports for the duration of the block."""
        async with self.front.serving(), self.storage.serving():
            yield self

    async def _answer(self, request: Request) -> Reply:
        if request.path == "/token":
            return self._token(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) < 1:
            realm = f'Bearer realm="{self.front.url}/token",service="registry",scope="repository:org/model:pull"'
            return Reply(401, b"{}", {"www-authenticate": realm})
        self.tokens[token] -= 1
        if request.path == "/v2/org/model/manifests/latest" or request.path.endswith(self.digest):
            return Reply(200, self.manifest, {"content-type": MANIFEST})
        match = re.fullmatch(r"/v2/org/model/blobs/(sha256:[0-9a-f]{64})", request.path)
        if match is None or match[1] not in self._blobs:
            return Reply(404, b"{}")
        return Reply(307, headers={"location": f"{self.storage.url}/{match[1]}"})

    def _token(self, request: Request) -> Reply:
        given = request.headers.get("authorization", "").removeprefix("Basic ")
        if self.login is not None and base64.b64decode(given) != self.login.encode():
            return Reply(401, b"{}")
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = self.token_uses
        return Reply(200, json.dumps({"token": token}).encode())

    async def _deliver(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return Reply(400, b"the token must not be sent here")
        digest = request.path.lstrip("/")
        return Reply(200, self._blobs[digest], {"etag": f'"{digest}"'})
