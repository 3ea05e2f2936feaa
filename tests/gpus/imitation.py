"""Compile the imitation of NVML, and change the hardware that it shows.

It is no NVML: its GPUs have no memory, run nothing, and fail only as a test tells them to.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.engines.fixtures import skip_or_fail

SOURCE = Path(__file__).with_name("imitation_nvml.c")
CACHE = Path.home() / ".cache/llama-orch-tests/imitation-nvml"
NAME = "libnvidia-ml.so.1"
XID_EVENT = 8


def library() -> Path:
    """Return the directory of the compiled library. Compiled once for each version of its source."""
    directory = CACHE / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    if not (directory / NAME).exists():
        compiler = shutil.which("cc") or skip_or_fail("a C compiler is needed to imitate NVML (apt install gcc)")
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            draft = directory / f"{os.getpid()}.so"
            flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f"-Wl,-soname,{NAME}"]
            subprocess.run([compiler, *flags, "-o", draft, SOURCE], check=True)
            draft.rename(directory / NAME)
    return directory


@dataclass(frozen=True)
class ImitatedGpu:
    """A GPU as the imitation shows it; None: it does not support the call. Memory in MiB, energy in J."""

    index: int = 0
    uuid: str = "GPU-00000000-0000-0000-0000-00000000000a"
    name: str = "NVIDIA H100"
    pci: str = "00000000:10:1C.0"
    cc: str | None = "9.0"
    total: int | None = 81_920
    used: int = 20_480
    util: int | None = 50
    temp: int | None = 60
    slowdown: int | None = 87
    watts: float | None = 300.0
    limit: float | None = 700.0
    joules: float | None = 1000.0
    mhz: int | None = 1980
    reasons: int | None = 0
    recovery: int | None = 0
    lost: int = 0
    procs: tuple[tuple[int, int], ...] = ()
    mig: tuple[tuple[str, int], ...] = ()

    @property
    def line(self) -> str:
        values = {**vars(self), "name": self.name.replace(" ", "_")}
        for key in ("procs", "mig"):
            values[key] = ",".join(f"{name}:{size}" for name, size in values[key]) or None
        return "gpu " + " ".join(f"{key}={'none' if value is None else value}" for key, value in values.items())


@dataclass
class ImitatedDriver:
    """The hardware of one process, by the file that the library reads."""

    state: Path
    gpus: list[ImitatedGpu] = field(default_factory=lambda: [ImitatedGpu()])

    def __post_init__(self) -> None:
        self.show()

    @property
    def environ(self) -> dict[str, str]:
        """The variables that make a process use the imitation."""
        return {"LD_LIBRARY_PATH": str(library()), "IMITATION_NVML": str(self.state)}

    def show(self, *extra: str) -> None:
        """Write the file anew; `extra` are lines such as `fail 999`."""
        draft = self.state.with_suffix(".draft")
        draft.write_text("\n".join([*(gpu.line for gpu in self.gpus), *extra, ""]))
        draft.rename(self.state)

    def change(self, number: int = 0, **values: object) -> None:
        """Change values of a GPU."""
        self.gpus[number] = replace(self.gpus[number], **values)  # type: ignore[arg-type]
        self.show()

    def inject(self, data: int, index: int = 0, kind: int = XID_EVENT) -> None:
        """Deliver an event to the process."""
        with self.state.with_name(f"{self.state.name}.events").open("a") as events:
            events.write(f"{index} {kind} {data}\n")
