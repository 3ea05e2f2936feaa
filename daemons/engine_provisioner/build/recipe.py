"""What is built and how: the flags for cmake, the number of jobs, and the key of the result. Pure."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TARGET = "llama-server"
KEY_DIGITS = 32
FLAG = re.compile(r"-D(?P<name>[A-Za-z0-9_]+)(?::[A-Za-z]+)?=(?P<value>.*)", re.DOTALL)
FALSE = ("", "0", "OFF", "NO", "FALSE", "N", "IGNORE", "NOTFOUND")

CUDA = "GGML_CUDA"
ARCHITECTURES = "CMAKE_CUDA_ARCHITECTURES"
GPU_BACKENDS = (CUDA, "GGML_HIP", "GGML_VULKAN", "GGML_SYCL", "GGML_MUSA", "GGML_OPENCL", "GGML_CANN")
"""The options of llama.cpp that make an engine for GPUs."""

DEFAULTS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "CMAKE_BUILD_RPATH_USE_ORIGIN": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
}
"""One executable without libraries of its own, unless cmake_flags ask for these; their paths are then relative."""

JOB_BYTES = 1 << 30
CUDA_JOB_BYTES = 3 << 30
"""The memory for one compiler. nvcc compiles for each architecture in turn and needs more."""


@dataclass(frozen=True)
class Compilers:
    """The compilers' versions, and the path of nvcc where the build uses it."""

    versions: tuple[str, ...]
    nvcc: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A build: all flags of cmake but those that only make it faster."""

    flags: tuple[str, ...]
    generator: str
    compilers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Identify the build directory: a directory of other flags or compilers must not be continued."""
        return _digest(self._content())[:16]

    def key(self, identity: str) -> str:
        """Identify the engine that this recipe makes from the source `identity`."""
        return _digest([identity, *self._content()])[:KEY_DIGITS]

    def _content(self) -> list[object]:
        return [list(self.flags), self.generator, list(self.compilers)]


def flag_value(flags: Sequence[str], name: str) -> str | None:
    """Return the value of the last -DNAME=VALUE, or None."""
    found = [match["value"] for flag in flags if (match := FLAG.fullmatch(flag)) and match["name"] == name]
    return found[-1] if found else None


def is_on(value: str | None) -> bool:
    """Whether cmake takes `value` for true."""
    return value is not None and value.upper() not in FALSE and not value.upper().endswith("-NOTFOUND")


def cuda_reason(flags: Sequence[str], gpus: Sequence[int]) -> str | None:
    """Return why the build is for CUDA, or None if it is not: asked for by a flag, or for the pool's GPUs."""
    asked = flag_value(flags, CUDA)
    if asked is not None:
        return f"{CUDA} in cmake_flags" if is_on(asked) else None
    if gpus and not any(is_on(flag_value(flags, name)) for name in GPU_BACKENDS):
        return f"GPU {','.join(map(str, gpus))} of the pool"
    return None


def cmake_flags(configured: Sequence[str], nvcc: str | None, architectures: Sequence[str]) -> tuple[str, ...]:
    """Return the flags for cmake: the defaults, those for CUDA if `nvcc` is given, and the configured ones last."""
    return (*_unless_given(configured, nvcc, architectures), *configured)


def _unless_given(configured: Sequence[str], nvcc: str | None, architectures: Sequence[str]) -> Iterator[str]:
    values = dict(DEFAULTS)
    if nvcc:
        values |= {CUDA: "ON", "CMAKE_CUDA_COMPILER": nvcc}
        values |= {ARCHITECTURES: ";".join(architectures)} if architectures else {}
    yield from (f"-D{name}={value}" for name, value in values.items() if flag_value(configured, name) is None)


def job_count(cores: int, available_bytes: int, *, cuda: bool) -> int:
    """Return how many compilers run at once: as many as cores, or fewer where memory would not do."""
    return max(1, min(cores, available_bytes // (CUDA_JOB_BYTES if cuda else JOB_BYTES)))


def _digest(content: list[object]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
