"""A git repository at a branch, tag or commit: shallow, without prompts, and bounded in time.

Owns `source/` and `git.config` in the workshop of a repository. Credentials of the URL are in that file, which only the
daemon can read, and never on a command line.
"""

import base64
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from engine_provisioner.build.build_log import BuildLog
from engine_provisioner.build.processes import Job, OnLine, TimedOut, run
from engine_provisioner.failures import ProvisioningFailure, Retry
from llama_orch.urls import without_secrets

LOOK_UP_S = 60.0
FETCH_S = 1800.0
COMMIT = re.compile(r"[0-9a-f]{40}")
ABBREVIATED = re.compile(r"[0-9a-f]{7,40}")
LISTED = re.compile(r"([0-9a-f]{40})\s+(\S+)")
ALL_REFS = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=15 -o StrictHostKeyChecking=yes"


class Unreachable(ProvisioningFailure):
    """The repository cannot be asked now."""


@dataclass(frozen=True)
class Repository:
    """A repository by its URL. `shown` is the URL without credentials, which git is given too."""

    url: str

    @property
    def shown(self) -> str:
        return without_secrets(self.url)

    @property
    def protocols(self) -> str:
        """What git may use. Submodules of a repository elsewhere must not reach files of this machine."""
        scheme = urlsplit(self.url).scheme
        return ":".join(dict.fromkeys(("https", "ssh", *([scheme] if scheme in ("file", "http") else []))))

    def config(self) -> str:
        """Return git's configuration: no helper is asked for credentials, and no hook or filter runs."""
        lines = ["[credential]", "\thelper =", "[core]", "\thooksPath = /dev/null", "\tfsmonitor = false"]
        lines += ["[http]", "\tlowSpeedLimit = 1000", "\tlowSpeedTime = 60", "[gc]", "\tauto = 0"]
        lines += ["[advice]", "\tdetachedHead = false", "[init]", "\tdefaultBranch = main"]
        parts = urlsplit(self.url)
        if parts.scheme == "file":  # owned by its user, or by one that the unit's namespace does not map
            lines += ["[safe]", f"\tdirectory = {_quoted(unquote(parts.path))}"]
            lines += [f"\tdirectory = {_quoted(unquote(parts.path).rstrip('/') + '/.git')}"]
        if parts.scheme in ("https", "http") and "@" in parts.netloc:
            login = unquote(parts.netloc.rpartition("@")[0])
            token = base64.b64encode((login if ":" in login else f"{login}:").encode()).decode()
            host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
            lines += [f"[http {_quoted(host)}]", f"\textraHeader = Authorization: Basic {token}"]
        return "\n".join([*lines, ""])


class Checkout:
    """The work tree of `repository` in `workshop`, which exists and is locked by the caller."""

    def __init__(
        self, repository: Repository, workshop: Path, env: Mapping[str, str], log: BuildLog, on_line: OnLine
    ) -> None:
        self._repository = repository
        self.tree = workshop / "source"
        self._config = workshop / "git.config"
        self._log = log
        self._on_line = on_line
        self._env = {
            **env,
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": SSH,
            "GIT_ALLOW_PROTOCOL": repository.protocols,
            "GIT_LFS_SKIP_SMUDGE": "1",
        }

    async def look_up(self, ref: str | None) -> str:
        """Return the commit of a branch or tag, of the default branch if None; a commit, also abbreviated, as it is.

        Raises Unreachable if the repository does not answer, ProvisioningFailure if it has no such ref.
        """
        if ref is not None and COMMIT.fullmatch(ref):
            return ref
        await trio.to_thread.run_sync(self._prepare)
        names = ["HEAD"] if ref is None else [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref]
        listed: dict[str, str] = {}

        async def remember(line: str) -> None:
            if match := LISTED.fullmatch(line.strip()):
                listed[match[2]] = match[1]

        status, reason = await self._git(LOOK_UP_S, "ls-remote", self._repository.shown, *names, on_line=remember)
        if status != 0:
            raise Unreachable(
                f"cannot look up {ref or 'the default branch'} in {self._repository.shown}: {reason}",
                "Check the repository's URL and the network.",
            )
        if found := next((listed[name] for name in names if name in listed), None):
            return found
        if ref is not None and ABBREVIATED.fullmatch(ref):
            return ref
        message = f"{self._repository.shown} has no branch, tag or commit {ref or 'HEAD'}"
        raise ProvisioningFailure(message, "Correct the key ref.", Retry.AFTER_FIX)

    async def check_out(self, commit: str, ref: str | None, *, submodules: bool) -> str:
        """Make the work tree that of `commit`, and return its full name. Raises ProvisioningFailure.

        An existing tree is updated, so that only files which differ are compiled again.
        """
        existed = self.tree.exists()
        try:
            return await self._check_out(commit, ref, submodules=submodules)
        except ProvisioningFailure:
            if not existed:
                raise
        # an interrupted git may leave what a later one cannot use
        await trio.to_thread.run_sync(shutil.rmtree, self.tree)
        return await self._check_out(commit, ref, submodules=submodules)

    async def _check_out(self, commit: str, ref: str | None, *, submodules: bool) -> str:
        await trio.to_thread.run_sync(self._prepare)
        await self._must(LOOK_UP_S, "init", "--quiet", ".")
        await self._fetch(commit, ref)
        await self._must(FETCH_S, "checkout", "--force", "--detach", "--quiet", commit)
        if submodules:
            await self._must(FETCH_S, "submodule", "sync", "--quiet", "--recursive")
            await self._must(
                FETCH_S, "submodule", "update", "--init", "--recursive", "--force", "--depth=1", "--progress"
            )
        return await self._commit_of("HEAD") or commit

    async def _fetch(self, commit: str, ref: str | None) -> None:
        """Fetch the commit alone, or everything from servers that do not give single commits."""
        if await self._commit_of(f"{commit}^{{commit}}"):
            return
        url = self._repository.shown
        wanted = [commit] if COMMIT.fullmatch(commit) else []
        if ref is not None and ref != commit:
            wanted.append(ref)
        for each in wanted:
            await self._git(FETCH_S, "fetch", "--depth=1", "--no-tags", "--force", "--progress", url, each)
            if await self._commit_of(f"{commit}^{{commit}}"):
                return
        shallow = ["--unshallow"] if (self.tree / ".git/shallow").exists() else []
        await self._must(FETCH_S, "fetch", "--force", "--progress", *shallow, url, *ALL_REFS)
        if not await self._commit_of(f"{commit}^{{commit}}"):
            message = f"{url} has no commit {commit}"
            raise ProvisioningFailure(message, "Correct the key ref.", Retry.AFTER_FIX)

    async def _commit_of(self, name: str) -> str | None:
        found: list[str] = []

        async def remember(line: str) -> None:
            found.extend(COMMIT.findall(line))

        status, _ = await self._git(LOOK_UP_S, "rev-parse", "--verify", "--quiet", name, on_line=remember)
        return found[-1] if status == 0 and found else None

    async def _must(self, limit_s: float, *arguments: str) -> None:
        status, reason = await self._git(limit_s, *arguments)
        if status != 0:
            message = f"git {arguments[0]} failed for {self._repository.shown}: {reason}"
            raise ProvisioningFailure(message, f"The log: {self._log.path}.")

    async def _git(self, limit_s: float, *arguments: str, on_line: OnLine | None = None) -> tuple[int, str]:
        """Run git in the work tree; return its status and its last line of output."""
        job = Job(("git", *arguments), self.tree, self._env, limit_s, limit_s)
        try:
            status = await run(job, self._log, on_line or self._on_line)
        except TimedOut as error:
            return -1, str(error)
        return status, next(iter(reversed(self._log.tail())), f"ended with status {status}")

    def _prepare(self) -> None:
        """Write git's configuration and remove the locks of an interrupted git."""
        self.tree.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            os.fchmod(fd, 0o600)
            file.write(self._repository.config())
        for lock in (self.tree / ".git").rglob("*.lock"):
            lock.unlink(missing_ok=True)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
