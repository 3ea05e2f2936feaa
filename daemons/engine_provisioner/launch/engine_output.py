"""The output of engines: the severity of each line, and the lines that explain why an engine ended."""

import logging
import re
from collections.abc import Iterable, Sequence

LINE_LIMIT = 1000
LINES_KEPT = 100
PREFIX = re.compile(r"^(?:\d+\.\d\d\.\d{3}\.\d{3} )?(?P<level>[DIWE] )?\s*")
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
PROBLEM = re.compile(
    r"error|fail|unable|cannot|can't|couldn't|could not|invalid|unknown|abort|assert|out of memory", re.I
)
CONSEQUENCE = re.compile(
    r"exiting due to|cleaning up|failed to load model|fit params|cannot meet free memory|failed to initialize the"
    r" context"
)
"""Lines that match PROBLEM and only follow from an earlier one."""
NO_VRAM = re.compile(
    r"(?:cuda|hip)malloc(?:async)? failed|cuda error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|ErrorOutOfDeviceMemory"
    r"|(?:failed|unable) to allocate (?:CUDA|ROCm|Vulkan|SYCL|MUSA|CANN|OpenCL)\d*(?:_Split)? buffer"
    r"|allocating [\d.]+ MiB on device \d+.*out of memory",
    re.I,
)
"""llama-server's lines when a GPU has too little memory. A failure to get pinned memory is none: it does without."""
NO_RAM = re.compile(r"bad_alloc|cannot allocate memory|failed to allocate CPU|ErrorOutOfHostMemory", re.I)
OUT_OF_MEMORY, OUT_OF_VRAM = ", out of memory", ", out of GPU memory"
EXIT_HINTS = {
    "vram": "Free GPU memory by unloading other pools, or set smaller ctx or slots, other or more devices, or a"
    ' quantized KV cache: flags = ["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"].',
    "oom": "Unload other pools, set smaller ctx or slots, or a higher MemoryMax= of llama-engines.slice if it has one.",
}
"""What to do about an exit, by the cause that `exit_cause` returns."""
TASK = re.compile(r"\btask (?:id = )?-?\d")
"""A line about one request. There are several per request, some of them warnings or errors caused by clients."""
SEVERITIES = {"E": logging.ERROR, "W": logging.WARNING}


def clean_line(raw: bytes) -> str:
    """Decode a line of output; remove colours and control characters, and cut it at LINE_LIMIT."""
    return CONTROL.sub("", raw.decode(errors="replace")).strip()[:LINE_LIMIT]


def level_of(line: str) -> str:
    """Return the level letter of llama-server's log line: D, I, W, E, or `-` if it has none."""
    match = PREFIX.match(line)
    return (match["level"] or "-").strip() if match else "-"


def severity_of(line: str) -> int:
    """Return the logging level for a line: DEBUG for normal output and for lines about single requests.

    Lines of releases without level letters are judged by their words.
    """
    if TASK.search(line):
        return logging.DEBUG
    letter = level_of(line)
    if letter == "-" and PROBLEM.search(line) and not CONSEQUENCE.search(line):
        return logging.WARNING
    return SEVERITIES.get(letter, logging.DEBUG)


def without_prefix(line: str) -> str:
    """Return the line without llama-server's clock and level letter."""
    return PREFIX.sub("", line, count=1)


def cause_in(lines: Sequence[str]) -> str | None:
    """Return the last line that gives a cause, as opposed to `exiting due to model loading error`."""
    errors = [line for line in lines if PROBLEM.search(line) and level_of(line) in "E-"]
    return next((line for line in reversed(errors) if not CONSEQUENCE.search(line)), None)


def exit_cause(message: str) -> str:
    """Return `ended`, `killed`, `oom` or `vram` for a message of `exit_message`."""
    manner = message.partition(":")[0]
    for words, cause in ((OUT_OF_VRAM, "vram"), (OUT_OF_MEMORY, "oom"), ("was killed by", "killed")):
        if words in manner:
            return cause
    return "ended"


def shortage(manner: str, lines: Iterable[str]) -> str:
    """Return what the engine ran out of, as words behind `manner`, or nothing.

    An engine that was stopped ran out of nothing. The kernel's OOM killer counts first: `manner` already has it.
    """
    if OUT_OF_MEMORY in manner or manner.startswith(("was stopped", "is still running")):
        return ""
    for line in lines:
        if NO_VRAM.search(line):
            return OUT_OF_VRAM
        if NO_RAM.search(line):
            return OUT_OF_MEMORY
    return ""


def exit_message(manner: str, lines: Iterable[str]) -> str:
    """Describe how an engine ended: the manner, the cause from its output if there is one, and its last line."""
    output = [line for line in lines if line.strip()]
    if not output:
        return f"the engine {manner} without any output"
    manner += shortage(manner, output)
    cause, last = cause_in(output), without_prefix(output[-1])
    message = f"the engine {manner}" if cause is None else f"the engine {manner}: {without_prefix(cause)}"
    return message if cause == output[-1] else f"{message}; its last line: {last}"
