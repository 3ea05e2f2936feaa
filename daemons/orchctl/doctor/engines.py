"""Engines on the disk: whether the libraries that they need are found."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from orchctl.check.findings import Finding, ok, problem
from orchctl.child import output_of
from orchctl.doctor.disks import CACHE, CACHE_VARIABLE
from orchctl.doctor.site import Site, Unknown

USER = "llama-engine"
PROGRAM = "llama-server"
MAX_FILES = 32
MAX_ENTRIES = 4000
DEPTH = 4
MISSING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
UNUSABLE = re.compile(r"(version `[^']{1,64}' not found \(required by [^)]{1,200}\))")


@dataclass(frozen=True)
class Libraries:
    """The libraries that a file of an engine needs and that are not found."""

    file: str
    missing: Sequence[str]


async def observe_engines(site: Site) -> Sequence[Libraries] | Unknown:
    if not site.installed("engine-provisioner"):
        return []
    cache = Path(site.variables.get("engine-provisioner", {}).get(CACHE_VARIABLE, CACHE))
    found = await trio.to_thread.run_sync(_files, cache / "engines", abandon_on_cancel=True)
    if isinstance(found, Unknown):
        return found
    if not found:
        return []
    # ldd may run the file: engines belong to a daemon's user, so root does not look at them as root
    drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--no-new-privs", "--")
    shown = await output_of(*(drop if site.root else ()), "ldd", "--", *map(str, found), limit_s=4.0)
    if shown.status is None:
        return Unknown(shown.problem)
    return parse_ldd(shown.out + shown.err, [*map(str, found)])


def _files(directory: Path) -> list[Path] | Unknown:
    """Return the engines' programs, and the libraries of their backends beside them. Blocks."""
    if not os.access(directory, os.R_OK | os.X_OK):
        return [] if not directory.exists() else Unknown(f"no permission to read {directory}", "sudo orchctl doctor")
    found: list[Path] = []
    seen = 0
    for path, folders, files in os.walk(directory):
        seen += len(files) + len(folders)
        if seen > MAX_ENTRIES or len(found) >= MAX_FILES:
            break
        if len(Path(path).relative_to(directory).parts) >= DEPTH:
            folders.clear()
        found += [Path(path, name) for name in files if name == PROGRAM or re.match(r"libggml-\w+\.so$", name)]
    return found[:MAX_FILES]


def parse_ldd(text: str, files: Sequence[str]) -> list[Libraries]:
    """Return the missing libraries of each file from the output of ldd(1), which names a file if there are several."""
    if len(files) == 1:
        return [Libraries(files[0], _missing(text))]
    parts = re.split(r"^(/[^\n]*):$", text, flags=re.MULTILINE)
    return [Libraries(name, _missing(body)) for name, body in zip(parts[1::2], parts[2::2], strict=False)]


def _missing(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*MISSING.findall(text), *UNUSABLE.findall(text))))


def engine_findings(engines: Sequence[Libraries]) -> Iterator[Finding]:
    for engine in engines:
        if engine.missing:
            text = f"{engine.file} needs {', '.join(engine.missing)}, which {_are(engine)} not found"
            yield problem("engines", text, _mend(engine.missing))
    if engines and not any(engine.missing for engine in engines):
        yield ok("engines", "every engine on the disk finds its libraries")


def _are(engine: Libraries) -> str:
    return "are" if len(engine.missing) > 1 else "is"


def _mend(missing: Sequence[str]) -> str:
    if "libcuda.so.1" in missing:
        return "libcuda.so.1 is part of the NVIDIA driver: install the driver, and see the findings about it."
    if any(name.startswith(("libcudart", "libcublas", "libnccl", "libcufft")) for name in missing):
        return "Install the CUDA runtime of that version, or let mode source build the engine for this machine's."
    return "ldd shows all libraries; install the packages that contain these, or use an engine built for this machine."
