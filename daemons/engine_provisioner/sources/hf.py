"""Models from the Hugging Face hub: `hf:ORG/REPO[:QUANT|/PATH.gguf][@REVISION]`.

Asks the hub's own API for the commit and the list of files. The library huggingface_hub is not used: it does not resume
a broken download, and its import costs 0.5 s and 28 MB. A model that is in the cache is used without asking the hub.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch import documents
from engine_provisioner.fetch.documents import Document
from engine_provisioner.fetch.remote_file import Refusal, RemoteFile
from engine_provisioner.fetch.web import Resource, Web, origin
from engine_provisioner.sources.hf_cache import COMMIT, HubCache, hub_files
from engine_provisioner.sources.hf_reference import PREFIX, HubFile, HubReference, choose, parse
from engine_provisioner.sources.source import ModelRequest, Resolved, Source, SourceContext, Stored, StoredPart

AUTHORITY = "the hub announces"
PAGES = 50
NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')
GIVE_ACCESS = (
    "set HF_TOKEN in /etc/llama-orch/engine-provisioner.env to a token that may read it, or write the token to "
    "/etc/llama-orch/hf-token, and restart engine-provisioner"
)


def check(ref: str) -> None:
    """Raise ValueError if `ref` is malformed."""
    parse(ref)


def cache_root(request: ModelRequest, context: SourceContext) -> Path:
    """Return the cache directory of the hub: as HF_HUB_CACHE and HF_HOME say, else in the daemon's own."""
    settings = context.settings
    if request.cache_dir:
        return request.cache_dir
    home = settings.hf_home or context.cache_dir / "huggingface"
    return settings.hf_hub_cache or home / "hub"


def stored(request: ModelRequest, context: SourceContext) -> Stored | None:
    """Return the model if all its files are in the cache."""
    reference = parse(request.ref)
    cache = HubCache(cache_root(request, context), reference.repo)
    commit = cache.commit(reference)
    if commit is None:
        return None
    files = cache.listing(commit)
    if files is None:  # another tool fetched it: without the list of all files, only an exact name is certain
        files = cache.present(commit) if reference.path or context.settings.hf_offline else []
    try:
        chosen = choose(files, reference, request.quant)
    except ProvisioningFailure:
        return None
    parts = []
    for file, role in chosen:
        path = cache.snapshot(commit, file)
        if not path.exists():
            return None
        required = request.sha256 if role == "model" else None
        parts.append(StoredPart(path, role, required or file.sha256, *(() if required else (AUTHORITY,))))
    return Stored(commit, tuple(parts))


async def resolve(request: ModelRequest, context: SourceContext, web: Web) -> Resolved:
    """Ask the hub for the commit and its files. Raises ProvisioningFailure."""
    reference = parse(request.ref)
    if context.settings.hf_offline:
        message = f"{request.ref} is not in the cache, and HF_HUB_OFFLINE is set"
        root = cache_root(request, context)
        hint = f"Unset HF_HUB_OFFLINE, or fetch the model into {root} on another machine."
        raise ProvisioningFailure(message, hint, Retry.AFTER_FIX)
    hub = _Hub(reference, context, web)
    commit = await hub.commit()
    listing = await hub.listing(commit)
    chosen = choose(listing, reference, request.quant)
    cache = HubCache(cache_root(request, context), reference.repo)
    files = tuple(
        RemoteFile(
            name=file.path,
            url=f"{hub.endpoint}/{reference.repo}/resolve/{commit}/{quote(file.path)}",
            target=cache.blob(file),
            shown=f"{reference}/{file.path}",
            keep=cache.directory.parent,
            role=role,
            headers=hub.headers,
            size=file.size,
            sha256=request.sha256 if role == "model" and request.sha256 else file.sha256,
            authority="the pools file requires" if role == "model" and request.sha256 else AUTHORITY,
            path=cache.snapshot(commit, file),
            explain=hub.explain,
        )
        for file, role in chosen
    )
    finish = partial(cache.finish, reference, commit, listing, [file for file, _role in chosen])
    return Resolved(request.ref, commit, files, finish)


def token(context: SourceContext) -> str | None:
    """Return the hub's token: HF_TOKEN or its credential, else the file HF_TOKEN_PATH or `hf auth login`. Blocks."""
    settings = context.settings
    home = settings.hf_home or (context.home / ".cache/huggingface" if context.home else None)
    if settings.hf_token:
        return settings.hf_token.get_secret_value()
    path = settings.hf_token_path or (home / "token" if home else None)
    return _first_line(path) if path else None


def _first_line(path: Path) -> str | None:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    return text if text.isascii() and text.isprintable() and " " not in text else None


class _Hub:
    """The hub's API for one repository."""

    def __init__(self, reference: HubReference, context: SourceContext, web: Web) -> None:
        self._reference = reference
        self._web = web
        self._token = token(context)
        self.endpoint = context.settings.hf_endpoint

    async def headers(self, _renew: bool) -> Mapping[str, str]:
        """Return the headers for the hub itself; the servers that it redirects to get none."""
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    async def commit(self) -> str:
        """Return the commit of the reference's revision."""
        document = await self._ask(f"/revision/{quote(self._reference.revision, safe='')}")
        commit = document.get("sha") if isinstance(document, dict) else None
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise self._senseless()
        return commit

    async def listing(self, commit: str) -> list[HubFile]:
        """Return the files of a commit."""
        found: list[HubFile] = []
        url: str | None = self._api(f"/tree/{commit}?recursive=true")
        for _page in range(PAGES):
            if url is None:
                break
            document = await self._read(url)
            entries = document.json(self._resource(url))
            if not isinstance(entries, list):
                raise self._senseless()
            files = (entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "file")
            found += hub_files(
                (entry.get("path"), entry.get("size"), entry.get("oid"), _lfs_oid(entry.get("lfs"))) for entry in files
            )
            link = NEXT.search(document.headers.get("link", ""))
            url = link[1] if link and origin(link[1]) == origin(self.endpoint) else None
        return found

    async def _ask(self, path: str) -> object:
        url = self._api(path)
        answer: object = (await self._read(url)).json(self._resource(url))
        return answer

    async def _read(self, url: str) -> Document:
        resource = self._resource(url)
        answer = await documents.read(self._web, resource, {}, await self.headers(False))
        if isinstance(answer, Refusal):
            raise self.explain(answer)
        return answer

    def _api(self, path: str) -> str:
        return f"{self.endpoint}/api/models/{self._reference.repo}{path}"

    def _resource(self, url: str) -> Resource:
        return Resource(url, f"{self._reference} at {self.endpoint}")

    def _senseless(self) -> ProvisioningFailure:
        message = f"{self.endpoint} does not answer like the Hugging Face hub"
        return ProvisioningFailure(message, "Correct HF_ENDPOINT.", Retry.AFTER_FIX)

    def explain(self, refusal: Refusal) -> ProvisioningFailure:
        """Return the failure that an answer of the hub means (X-Error-Code)."""
        code = refusal.headers.get("x-error-code", "")
        name, page = str(self._reference), f"{self.endpoint}/{self._reference.repo}"
        if code == "GatedRepo":
            if self._token and refusal.status == 403:
                hint = f"Accept the terms at {page} with the account of the token, or use a token of another account."
                return ProvisioningFailure(f"{name} is gated, and the token has no access", hint, Retry.AFTER_FIX)
            hint = f"Accept the terms at {page}, then {GIVE_ACCESS}."
            problem = "the token is not valid" if self._token else "no token is set"
            return ProvisioningFailure(f"{name} is gated, and {problem}", hint, Retry.AFTER_FIX)
        if code == "RevisionNotFound":
            message = f"{name} has no revision {self._reference.revision}"
            return ProvisioningFailure(message, f"{page}/branches lists them.", Retry.AFTER_FIX)
        if code == "EntryNotFound":
            return ProvisioningFailure(f"{name} no longer has the file", "Correct the reference.", Retry.AFTER_FIX)
        if code == "RepoNotFound" or refusal.status in (401, 404):
            hint = f"Check the name at {page}. For a private repository, {GIVE_ACCESS}."
            return ProvisioningFailure(f"{name} does not exist, or is private", hint, Retry.AFTER_FIX)
        hint = f"See {page}." if refusal.status != 403 else f"It may require a token: {GIVE_ACCESS}."
        return ProvisioningFailure(f"{name}: the hub answered {refusal.status}", hint, Retry.AFTER_FIX)


def _lfs_oid(lfs: object) -> object:
    return lfs.get("oid") if isinstance(lfs, dict) else None


SOURCE = Source((PREFIX,), "hf:", check, stored, resolve, takes_quant=True)
