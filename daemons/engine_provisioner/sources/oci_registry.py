"""A registry's API (OCI distribution): manifests, and the tokens for them and for blobs."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch import documents
from engine_provisioner.fetch.documents import Document
from engine_provisioner.fetch.remote_file import Refusal
from engine_provisioner.fetch.web import Resource, Web, is_cleartext
from engine_provisioner.sources.oci_manifest import INDEXES, MANIFESTS
from engine_provisioner.sources.source import SourceContext
from llama_orch.addresses import is_loopback

DOCKER = ("docker.io", "index.docker.io", "registry-1.docker.io")
DOCKER_REGISTRY = "registry-1.docker.io"
DOCKER_KEY = "https://index.docker.io/v1/"
PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"')
LOG_IN = (
    "If it is private, log in with `podman login --authfile /etc/llama-orch/registry-auth.json`, let only root and "
    "engine-provisioner read the file, and set REGISTRY_AUTH_FILE to it"
)


class Registry:
    """One repository of a registry. Asks for a token when the registry refuses a request, also later."""

    def __init__(self, host: str, repository: str, shown: str, context: SourceContext, web: Web) -> None:
        self._repository = f"library/{repository}" if host in DOCKER and "/" not in repository else repository
        self._host = host
        self._shown = shown
        self._context = context
        self._web = web
        self._authorization: str | None = None
        self._challenge = ""
        server = DOCKER_REGISTRY if host in DOCKER else host
        scheme = "http" if is_loopback(urlsplit(f"//{server}").hostname or "") else "https"
        self._base = f"{scheme}://{server}/v2/{self._repository}"

    def blob_url(self, digest: str) -> str:
        """Return the URL of a layer."""
        return f"{self._base}/blobs/{digest}"

    async def headers(self, renew: bool) -> Mapping[str, str]:
        """Return the headers for the registry itself. Raises ProvisioningFailure."""
        if renew and self._challenge:
            await self._authenticate(self._challenge)
        return {"authorization": self._authorization} if self._authorization else {}

    async def manifest(self, reference: str) -> Document:
        """Return the manifest or index with a tag or digest. Raises ProvisioningFailure."""
        resource = Resource(f"{self._base}/manifests/{reference}", self._shown)
        accept = {"accept": ", ".join((*MANIFESTS, *INDEXES))}
        answer = await documents.read(self._web, resource, accept, await self.headers(False))
        if isinstance(answer, Refusal) and answer.status == 401:
            self._challenge = answer.headers.get("www-authenticate", "")
            await self._authenticate(self._challenge)
            answer = await documents.read(self._web, resource, accept, await self.headers(False))
        if isinstance(answer, Refusal):
            raise self.explain(answer)
        return answer

    async def _authenticate(self, challenge: str) -> None:
        """Get the authorization that a WWW-Authenticate header asks for. Raises ProvisioningFailure."""
        basic = await trio.to_thread.run_sync(self._basic)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            self._authorization = f"Basic {basic}" if basic else None
            return
        parameters = dict(PARAMETER.findall(rest))
        realm = parameters.get("realm", "")
        if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("https", "http") or is_cleartext(realm):
            message = f"{self._shown}: the registry asks for an unknown kind of authentication"
            raise ProvisioningFailure(message, "It must be Basic, or Bearer with an https:// realm.", Retry.AFTER_FIX)
        query = {"scope": parameters.get("scope") or f"repository:{self._repository}:pull"}
        if service := parameters.get("service"):
            query["service"] = service
        resource = Resource(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", self._shown)
        private = {"authorization": f"Basic {basic}"} if basic else {}
        answer = await documents.read(self._web, resource, {}, private)
        if isinstance(answer, Refusal):
            raise self.explain(answer)
        content = answer.json(resource)
        token = (content.get("token") or content.get("access_token")) if isinstance(content, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ProvisioningFailure(f"{self._shown}: the registry's token service sent no token", "")
        self._authorization = f"Bearer {token}"

    def explain(self, refusal: Refusal) -> ProvisioningFailure:
        """Return the failure that a refusal of the registry means."""
        if refusal.status in (401, 403):
            message = f"{self._shown} does not exist, or the registry denies access"
            return ProvisioningFailure(message, f"{LOG_IN}.", Retry.AFTER_FIX)
        if refusal.status == 404:
            return ProvisioningFailure(f"{self._shown} does not exist", "Correct the reference.", Retry.AFTER_FIX)
        message = f"{self._shown}: the registry answered {refusal.status}"
        return ProvisioningFailure(message, "", Retry.AFTER_FIX)

    def _basic(self) -> str | None:
        """Return the credentials for this registry, as Basic needs them, from the first file that has some. Blocks."""
        host = "docker.io" if self._host in DOCKER else self._host
        namespaces = [host, *_namespaces(host, self._repository)]
        keys = [*reversed(namespaces), f"https://{host}", *([DOCKER_KEY] if host == "docker.io" else [])]
        for path in auth_files(self._context):
            auths = _auths(path)
            for key in keys:
                if found := auths.get(key):
                    return found
        return None


def auth_files(context: SourceContext) -> Iterator[Path]:
    """Yield the files that may have credentials, in the order of containers-auth.json(5)."""
    if context.settings.registry_auth_file:
        yield context.settings.registry_auth_file
        return
    if context.runtime_dir:
        yield context.runtime_dir / "containers/auth.json"
    if context.home:
        yield context.home / ".config/containers/auth.json"
        yield context.home / ".docker/config.json"


def _namespaces(host: str, repository: str) -> Iterator[str]:
    parts = repository.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join((host, *parts[:count]))


def _auths(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
        entries = content.get("auths", {}).items()
        found = {key: entry.get("auth") for key, entry in entries if isinstance(entry, dict)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {key: auth for key, auth in found.items() if isinstance(auth, str) and _is_basic(auth)}


def _is_basic(auth: str) -> bool:
    try:
        return b":" in base64.b64decode(auth, validate=True)
    except (binascii.Error, ValueError):
        return False
