"""A real llama-server in a self-contained directory, which runs from any path, as any user, on Debian 12 and 13.

The packages of Debian unstable are unpacked together with the C library that they are linked with, so that the server
needs nothing of the machine but a shell. `python -m tests.engines.llama_server` prints its path.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.engines.cache import cached
from tests.engines.debian_packages import PackagesUnavailable, Pin, unpack

SUITE = "sid"
PINS = (
    Pin("llama.cpp-tools", "1:0.7.0+dfsg-2", "3007c170f116891974bd37d5ba802f094c7d020412f2100cc71582fc8530895c"),
    Pin("libllama0", "1:0.7.0+dfsg-2", "7d49cde5582ccdc8c454b379ba627eea8c95813b6a9c70628653101f629204d6"),
    Pin("libggml0", "0.27.0-1", "f621153d6615a8dd1ac4b14e110cbafca34cc66f551367c5f6326f71fb141b0d"),
    Pin("libc6", "2.43-7", "5c71715c51103beb4fbba9fe9f8dff604af6610dfa71c70bff342f54a7860803"),
    Pin("libgcc-s1", "16.2.0-4", "d251ea642c3795e8723ac2b9eeebe511467ca04590ba70f3d555a7616787d7e3"),
    Pin("libstdc++6", "16.2.0-4", "cef6654bba1daece0bc0dbe0e3f69fa5a26eb6ba139f3536e6f4806bd787f3e7"),
    Pin("libgomp1", "16.2.0-4", "11cb09fd79c2de0acbdc23b0eb350445c563b16a36d879b355dfd45a5d2d6d3e"),
    Pin("libssl3t64", "3.6.5-1", "0a0ec84fe860c5c93c74d53cbb071aea0793327a3761b483080e9d7b73c21b37"),
    Pin("libzstd1", "1.5.7+dfsg-4", "93e7930e4c25b918f1dd980cc1c6d4487654a248f5fa71eacb976ed7bbe954bd"),
    Pin("zlib1g", "1:1.3.dfsg+really1.3.2-4", "8506ce550a81ac14b047608e0df121037d9cbb10c3cc28446f68cf8c1d9d31ce"),
)

LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
LOADER = "ld-linux-x86-64.so.2"
WRAPPER = f"""#!/bin/sh
# Use the server's own dynamic linker, because the machine's C library may be too old.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$root/lib/{LOADER}" --library-path "$root/lib" --argv0 llama-server "$root/libexec/server" "$@"
"""


@dataclass(frozen=True)
class Archive:
    """A .tar.gz of the directory."""

    path: Path
    sha256: str

    @property
    def checksum(self) -> str:
        """The digest in the format of the pools file."""
        return f"sha256:{self.sha256}"


def llama_server_directory() -> Path:
    """Return the directory that contains `bin/llama-server`. It is fetched once for each machine (12 MB, 5 s).

    Raises PackagesUnavailable if Debian's archive cannot be reached or the machine is not amd64.
    """
    return cached(f"llama-server-{_key()}", _assemble)


def llama_server_archive() -> Archive:
    """Return an archive of the directory with one top directory. The same contents give the same bytes."""
    directory = llama_server_directory()
    path = cached(f"llama-server-{_key()}.tar.gz", lambda draft: pack(directory, "llama-server", draft))
    return Archive(path, hashlib.sha256(path.read_bytes()).hexdigest())


def _key() -> str:
    """Return a hash of everything that the directory is made from."""
    return hashlib.sha256(repr((SUITE, PINS, WRAPPER)).encode()).hexdigest()[:12]


def _assemble(target: Path) -> None:
    if os.uname().machine != "x86_64":
        raise PackagesUnavailable(f"the pinned llama-server needs amd64, not {os.uname().machine}")
    with tempfile.TemporaryDirectory() as workspace:
        tree, versions = unpack(PINS, SUITE, Path(workspace))
        _lay_out(tree, target)
    (target / "VERSIONS.json").write_text(json.dumps(versions, indent=1) + "\n")
    wrapper = target / "bin/llama-server"
    wrapper.parent.mkdir()
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)


def _lay_out(tree: Path, target: Path) -> None:
    """Copy the server and its libraries, with all libraries in the directory of the dynamic linker.

    ggml looks for its CPU back ends in the directory of /proc/self/exe, which is the dynamic linker.
    """
    (target / "lib").mkdir(parents=True)
    (target / "libexec").mkdir()
    shutil.copy(tree / "usr/bin/llama-server", target / "libexec/server")
    for library in [*_needed(tree), *(tree / LIBRARIES / "ggml/backends0").glob("*.so"), tree / LIBRARIES / LOADER]:
        copy = target / "lib" / library.name
        shutil.copy(library, copy)
        copy.chmod(0o755)
    for notice in sorted((tree / "usr/share/doc").glob("*/copyright")):
        shutil.copy(notice, target / f"{notice.parent.name}.copyright")


def _needed(tree: Path) -> list[Path]:
    """Return the libraries that the server is linked with, as its own dynamic linker finds them."""
    libraries = tree / LIBRARIES
    path = f"{libraries}:{libraries}/llama"
    command = [str(libraries / LOADER), "--library-path", path, "--list", str(tree / "usr/bin/llama-server")]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [Path(line.split(" => ")[1].split(" (")[0]) for line in listed.splitlines() if " => " in line]
    return [library for library in found if library.name != LOADER]


def pack(directory: Path, top: str, archive: Path) -> None:
    """Write `directory` to the .tar.gz `archive` below `top`, sorted, without times, owned by root."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            tar.add(path, f"{top}/{path.relative_to(directory)}", recursive=False, filter=_normalized)
    archive.write_bytes(gzip.compress(body.getvalue(), compresslevel=6, mtime=0))


def _normalized(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


if __name__ == "__main__":
    try:
        print(llama_server_directory() / "bin/llama-server")
    except PackagesUnavailable as error:
        sys.exit(f"no llama-server: {error}")
