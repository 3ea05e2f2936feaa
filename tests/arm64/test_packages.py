"""The packages for arm64 (`make arm64-check`): their compiled modules load in Debian's arm64 Pythons, under qemu-user.

Python 3.12 is in no Debian release; of its modules only the format is checked.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engines.cache import cached
from tests.engines.debian_packages import unpack_current
from tests.engines.fixtures import skip_or_fail

ROOT = Path(__file__).resolve().parents[2]
SITE = "usr/lib/llama-orch/lib/python3/site-packages"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
MODULES = ("markupsafe/_speedups", "pydantic_core/_pydantic_core")
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
EM_AARCH64 = 183
LIBRARIES = (
    "libc6",
    "libgcc-s1",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libuuid1",
)
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import markupsafe._speedups, pydantic_core, platform
import engine_provisioner.__main__, orchctl.__main__, pool_managerd.__main__, queen_rbee.__main__
from engine_provisioner.spec.pool_spec import Pool
assert Pool.model_validate({"id": "a", "model": "file:/m.gguf", "provisioning": {"mode": "external", "url": "http://127.0.0.1:1"}})
print(platform.machine(), *sys.version_info[:2])
"""


def build(kind: str) -> Path:
    """Build the package into build/arm64 and return it."""
    target = ROOT / "build/arm64"
    environment = {"ARCH": "arm64", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home())}
    subprocess.run([ROOT / f"packaging/build_{kind}.sh", target], check=True, env=environment)
    [package] = target.glob(f"llama-orch*.{kind}")
    return package


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the .deb."""
    tree = tmp_path_factory.mktemp("deb")
    subprocess.run(["dpkg-deb", "-x", build("deb"), tree], check=True)
    return tree


def python(version: str) -> Path:
    """Return a tree with Debian's Python of this version for arm64."""

    def make(draft: Path) -> None:
        ssl = "libssl3" if version == "3.11" else "libssl3t64"
        of_version = (f"python{version}-minimal", f"libpython{version}-minimal", f"libpython{version}-stdlib")
        tree = unpack_current(
            (*LIBRARIES, "libsqlite3-0", "libuuid1", "libzstd1", ssl, *of_version), SUITES[version], "arm64", draft
        )
        if not (tree / "lib").exists():
            (tree / "lib").symlink_to("usr/lib")

    return cached(f"python{version}-arm64", make) / "tree"


def compiled(version: str, tree: Path) -> list[Path]:
    tag = version.replace(".", "")
    return [tree / SITE / f"{module}.cpython-{tag}-aarch64-linux-gnu.so" for module in MODULES]


@pytest.mark.parametrize("version", VERSIONS)
def test_compiled_modules_are_for_arm64(deb: Path, version: str) -> None:
    for module in compiled(version, deb):
        head = module.read_bytes()[:20]
        assert (head[:4], int.from_bytes(head[18:20], "little")) == (b"\x7fELF", EM_AARCH64)


def test_nothing_is_for_another_machine(deb: Path) -> None:
    expected = {module for version in VERSIONS for module in compiled(version, deb)}
    assert set(deb.rglob("*.so")) == expected


def test_rpm_has_the_same_modules(deb: Path) -> None:
    dump = subprocess.run(["rpm", "-qp", "--dump", build("rpm")], check=True, capture_output=True, text=True).stdout
    digests = {row.split()[0]: row.split()[3] for row in dump.splitlines()}
    for module in deb.rglob("*.so"):
        assert digests[f"/{module.relative_to(deb)}"] == hashlib.sha256(module.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", SUITES)
def test_daemons_can_be_imported(deb: Path, version: str) -> None:
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None:
        skip_or_fail("qemu-user is not installed: apt-get install qemu-user-static")
    tree = python(version)
    command = [qemu, "-L", str(tree), f"{tree}/usr/bin/python{version}", "-IS", "-c", PROGRAM, str(deb / SITE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["aarch64", *version.split(".")]), done.stderr
