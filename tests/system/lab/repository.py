"""Signed repositories of the packages under test, made by packaging/make_repo.sh with a key of their own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.lab.package import ROOT

OWNER = "packages@llama-orch.invalid"


@contextmanager
def signing_key() -> Iterator[dict[str, str]]:
    """Provide the environment with a new key as REPO_KEY. The keyring is removed afterwards."""
    # The path of the agent's socket must be short.
    with TemporaryDirectory(prefix="gpg-") as home:
        environment = {**os.environ, "GNUPGHOME": home, "REPO_KEY": OWNER}
        command = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", OWNER, "ed25519", "sign", "1d"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        try:
            yield environment
        finally:
            subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=False, env=environment)


def make(kind: str, package: Path, dist: Path, environment: dict[str, str]) -> Path:
    """Make the repository `kind` (apt or dnf) of one package in `dist`. Raises CalledProcessError."""
    dist.mkdir(parents=True, exist_ok=True)
    shutil.copy(package, dist)
    command = [str(ROOT / "packaging/make_repo.sh"), kind, str(dist)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return dist / kind
