"""dnf and the signed repository of the .rpm, in empty roots: what it resolves, and what it refuses."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.lab.package import built_rpm
from tests.system.lab.repository import make, signing_key
from tests.system.lab.rpm import base, package


@pytest.fixture(scope="module")
def repository(prerequisites: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The repository with the .rpm."""
    with signing_key() as environment:
        yield make("dnf", built_rpm(), tmp_path_factory.mktemp("dist"), environment)


def distribution(directory: Path, *packages: Path) -> Path:
    """Make an unsigned repository of these packages: those of the distribution."""
    directory.mkdir()
    for each in packages:
        shutil.copy(each, directory)
    subprocess.run(["createrepo_c", "--quiet", directory], check=True)
    return directory


def install(root: Path, repository: Path, base_repository: Path) -> subprocess.CompletedProcess[str]:
    """Install llama-orch in `root`, without scriptlets, since there is no shell in it."""
    repositories = root / "etc/yum.repos.d"
    repositories.mkdir(parents=True)
    (repositories / "test.repo").write_text(
        f"[base]\nname=base\nbaseurl=file://{base_repository}\ngpgcheck=0\n"
        f"[llama-orch]\nname=llama-orch\nbaseurl=file://{repository}\ngpgcheck=1\nrepo_gpgcheck=1\n"
        f"gpgkey=file://{repository}/llama-orch.asc\n"
    )
    options = ("--assumeyes", "--quiet", f"--installroot={root}", "--releasever=42", "--setopt=tsflags=noscripts")
    own = (f"--setopt=reposdir={repositories}", f"--setopt=cachedir={root}/cache", f"--setopt=logdir={root}/log")
    (root / "dnf.conf").touch()
    (root / "log").mkdir()
    command = ["dnf", f"--config={root}/dnf.conf", *options, *own, "install", "llama-orch"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def installed(root: Path) -> set[str]:
    database = next(root.rglob("rpmdb.sqlite")).parent
    command = ["rpm", "--query", "--all", "--dbpath", str(database), "--queryformat", "%{NAME}\\n"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_dnf_installs_from_the_signed_repository(repository: Path, tmp_path: Path) -> None:
    done = install(tmp_path / "root", repository, distribution(tmp_path / "base", base("3.13")))
    assert done.returncode == 0, done.stderr
    assert {"llama-orch", "distribution-base"} <= installed(tmp_path / "root")
    assert (tmp_path / "root/usr/lib/llama-orch/bin/python3").exists()


def test_dnf_adds_a_python_beside_that_of_el_9(repository: Path, tmp_path: Path) -> None:
    more = [package(f"python{version}", f"python(abi) = {version}") for version in ("3.11", "3.12")]
    done = install(tmp_path / "root", repository, distribution(tmp_path / "base", base("3.9"), *more))
    assert done.returncode == 0, done.stderr
    assert len({"python3.11", "python3.12"} & installed(tmp_path / "root")) == 1


def test_dnf_says_which_pythons_would_do(repository: Path, tmp_path: Path) -> None:
    done = install(tmp_path / "root", repository, distribution(tmp_path / "base", base("3.9")))
    assert done.returncode != 0
    assert "python(abi) = 3.11" in done.stderr


def test_dnf_refuses_a_forged_repository(repository: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(repository, forged)
    index = forged / "repodata/repomd.xml"
    index.write_text(index.read_text() + "<!-- forged -->\n")
    done = install(tmp_path / "root", forged, distribution(tmp_path / "base", base("3.13")))
    assert done.returncode != 0
    assert "GPG" in done.stderr
