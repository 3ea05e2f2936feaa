"""What a support bundle contains: for each file, how it is gathered. Nothing here has prompts or answers."""

import json
import platform
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from llama_orch import VERSION
from llama_orch.packages import os_release
from llama_orch.settings.declared import DECLARED
from orchctl.bundle.machine import Machine
from orchctl.check.findings import make_report
from orchctl.child import output_of
from orchctl.client import QueenClient
from orchctl.config.config import DAEMONS, document
from orchctl.config.sources import TextFile, settings_of
from orchctl.doctor.report import diagnose
from orchctl.doctor.site import ENGINES, SLICE, TARGET
from orchctl.errors import CommandError

JOURNAL_LINES = 2000
JOURNAL_BYTES = 4 << 20
FILE_BYTES = 1 << 20
LIMIT_S = 30.0
UNITS = (
    *(f"{daemon}.service" for daemon in DAEMONS),
    *("queen-rbee.socket", "pool-managerd.socket", "engine-provisioner-local.socket", SLICE, TARGET),
)
POOLS_FILE, POOLS_DIRECTORY, MAX_POOLS_FILES = Path("/etc/llama-orch/pools.toml"), Path("/etc/llama-orch/pools.d"), 256
OF_SYSTEMD = "_PID=1"
"""Only what systemd says about engines: their own output may contain prompts."""
QUEEN_PATHS = {
    "queen/version.json": "/v2/meta/version",
    "queen/ready.json": "/ready",
    "queen/capabilities.json": "/v2/meta/capabilities",
    "queen/pools.json": "/v2/pools",
    "queen/nodes.json": "/v2/nodes",
    "queen/gpus.json": "/v2/gpus",
    "queen/operations.json": "/v2/operations",
}
"""Tasks, sessions and artifacts are not among them."""


@dataclass(frozen=True)
class Part:
    """One file of the bundle. `gather` returns its text, which is not redacted yet."""

    name: str
    gather: Callable[[], Awaitable[str]]


def parts(queen: QueenClient, machine: Machine) -> Iterator[Part]:
    """Yield every part of the bundle."""
    yield Part("versions.json", _versions)
    yield Part("doctor.json", partial(_doctor, queen))
    yield Part("config.json", partial(_config, machine))
    for name, of_queen in QUEEN_PATHS.items():
        yield Part(name, partial(_from_queen, queen, of_queen))
    for sources in machine.sources:
        for file in (*sources.fragments, *sources.files):
            yield Part(f"files{file.path}", partial(_text_of, file))
    for path in _pools_files():
        yield Part(f"files{path}", partial(_read_file, path))
    for unit in (*UNITS, *ENGINES):
        yield Part(f"units/{unit.replace('*', 'all')}.txt", partial(_output, "systemctl", "show", "--", unit))
    for daemon in DAEMONS:
        yield Part(f"journal/{daemon}.txt", partial(_journal, f"--unit={daemon}.service"))
    yield Part("journal/engines.txt", partial(_journal, *(f"--unit={unit}" for unit in ENGINES), OF_SYSTEMD))
    yield Part("journal/kernel.txt", partial(_journal, "--dmesg", "--grep=NVRM|Xid|Out of memory|oom"))
    yield Part("system/nvidia-smi.txt", partial(_output, "nvidia-smi"))
    yield Part("system/memory.txt", partial(_output, "free", "-h"))
    yield Part("system/disks.txt", partial(_output, "df", "-hT"))
    yield Part("system/ports.txt", partial(_output, "ss", "-ltn"))


async def text_of(part: Part) -> str:
    """Return the text of a part; what keeps it from being gathered is its text, too."""
    try:
        with trio.fail_after(LIMIT_S):
            return await part.gather()
    except trio.TooSlowError:
        return f"not gathered within {LIMIT_S:g} s\n"
    except CommandError as error:
        return f"not gathered: {error.message}\n"
    except OSError as error:
        return f"not gathered: {error.strerror}\n"


async def _versions() -> str:
    systemd = await output_of("systemctl", "--version")
    engine = await output_of("llama-server", "--version")
    return _json(
        {
            "orchctl": VERSION,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "distribution": os_release().get("PRETTY_NAME"),
            "systemd": systemd.problem or systemd.out.partition("\n")[0],
            "llama-server": engine.problem or (engine.out + engine.err)[:1000],
        }
    )


async def _doctor(queen: QueenClient) -> str:
    return make_report(queen.url, await diagnose(queen)).model_dump_json(indent=1)


async def _config(machine: Machine) -> str:
    return _json([document(each, settings_of(each, DECLARED[each.daemon])) for each in machine.sources])


async def _from_queen(queen: QueenClient, path: str) -> str:
    return (await queen.call("GET", path, allowed=(503,))).decode(errors="replace")


async def _text_of(file: TextFile) -> str:
    return "cannot be read by this user\n" if file.text is None else file.text


def _pools_files() -> list[Path]:
    try:
        paths = (POOLS_FILE, *sorted(POOLS_DIRECTORY.glob("*.toml"))[:MAX_POOLS_FILES])
        return [path for path in paths if path.exists()]
    except OSError:
        return []


async def _read_file(path: Path) -> str:
    async with await trio.open_file(path, "rb") as file:
        return (await file.read(FILE_BYTES)).decode(errors="replace")


async def _output(*argv: str) -> str:
    found = await output_of(*argv)
    return found.out + found.err + (f"{found.problem}\n" if found.problem else "")


async def _journal(*words: str) -> str:
    """Return the last lines; journalctl prints the first ones first, so they are few enough for JOURNAL_BYTES."""
    argv = ("journalctl", "--no-pager", "--output=short-iso-precise", f"--lines={JOURNAL_LINES}", *words)
    found = await output_of(*argv, limit_s=LIMIT_S / 2, max_bytes=JOURNAL_BYTES)
    return found.out + found.err + (f"{found.problem}\n" if found.problem else "")


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
