"""The .rpm where there is no Fedora and no EL: small packages stand in for what their base would provide."""

import hashlib
import subprocess
from pathlib import Path

from tests.engines.cache import cached
from tests.system.lab.container import Container, Result

BASE = "systemd = 257, dbus, bash, /bin/sh, libc.so.6(GLIBC_2.28)(64bit), libgcc_s.so.1()(64bit)"
SPEC = """\
Name: {name}
Version: 1
Release: 1
Summary: What the distribution would provide
License: Apache-2.0
BuildArch: noarch
Provides: {provides}
%description
An empty package.
%files
"""


def base(python: str) -> Path:
    """Return a package that provides a base with this version of Python. Raises CalledProcessError."""
    return package("distribution-base", f"python(abi) = {python}, {BASE}")


def package(name: str, provides: str) -> Path:
    """Return an empty package that provides this. Raises CalledProcessError."""
    spec = SPEC.format(name=name, provides=provides)
    key = hashlib.sha256(spec.encode()).hexdigest()[:8]
    return cached(f"{name}-{key}-rpm", lambda draft: _build(spec, draft)) / f"{name}.rpm"


def _build(spec: str, draft: Path) -> None:
    draft.mkdir()
    (draft / "package.spec").write_text(spec)
    defines = {"_topdir": draft, "_rpmdir": draft, "_build_name_fmt": "%%{NAME}.rpm"}
    words = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
    subprocess.run(["rpmbuild", "-bb", *words, draft / "package.spec"], check=True, capture_output=True)


def rpm(container: Container, action: str, file: Path) -> Result:
    """Run `rpm ACTION` on a package, which is copied into the machine."""
    container.write(f"/root/{file.name}", file.read_bytes())
    return container.run("rpm", action, f"/root/{file.name}")


def install_base(container: Container) -> None:
    """Install the stand-in for the distribution, with the Python of Debian 13. Raises AssertionError."""
    done = rpm(container, "--install", base("3.13"))
    assert done.status == 0, done.stderr
