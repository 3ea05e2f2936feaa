"""Messages of the kernel since the boot: GPUs' faults, and processes that were killed because memory ran out."""

import re
from collections.abc import Iterator, Sequence

from orchctl.check.findings import Finding, ok, problem, warning
from orchctl.child import output_of
from orchctl.doctor.site import Site, Unknown
from orchctl.journal.entries import Entry, local_time, parse_entry
from orchctl.journal.journalctl import JOURNALCTL, NO_PERMISSION

PATTERN = r"NVRM: |Out of memory: Killed|Memory cgroup out of memory: Killed"
MAX_ENTRIES = 500
SHOWN = 5
XID = re.compile(r"NVRM: Xid \(([^)]{1,40})\): (\d{1,4})")
KILLED = re.compile(r"Killed process (\d+) \(([^)]{1,32})\)")
FATAL = re.compile(r"NVRM: .*(API mismatch|fallen off the bus|RmInitAdapter failed|failed to load|not supported)", re.I)
OURS = re.compile(r"llama|python|queen-rbee|pool-managerd|engine-prov|vllm|triton|text-gen")
NO_JOURNAL = "No journal files were found"
GROUP_HINT = "sudo orchctl doctor, or usermod -aG systemd-journal $USER"


async def observe_kernel(_site: Site) -> Sequence[Entry] | Unknown:
    words = ("--dmesg", "--boot", "--output=json", "--no-pager", f"--lines={MAX_ENTRIES}", f"--grep={PATTERN}")
    shown = await output_of(JOURNALCTL, *words)
    if shown.status is None:
        return Unknown(shown.problem)
    if any(text in shown.err for text in NO_PERMISSION):
        return Unknown("no permission to read the journal", GROUP_HINT)
    if NO_JOURNAL in shown.err:
        return Unknown("this machine has no journal")
    return [entry for line in shown.out.splitlines() if (entry := parse_entry(line))]


def kernel_findings(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield the last messages of each kind; an Xid counts once for each GPU and code."""
    found = 0
    for (gpu, code), times in _xids(entries).items():
        found += 1
        count = f", {len(times)} times" if len(times) > 1 else ""
        mend = "orchctl gpus shows whether the GPU is fenced, and what to do; Xids are explained in pool-managerd(8)."
        yield warning("kernel", f"Xid {code} of the GPU {gpu} at {times[-1]}{count}", mend)
    for entry in [entry for entry in entries if FATAL.search(entry.message)][-SHOWN:]:
        found += 1
        mend = "Reboot if the driver was upgraded; otherwise see journalctl -k -b -g NVRM."
        yield problem("kernel", f"{local_time(entry.at)}: {entry.message}", mend)
    for entry in [entry for entry in entries if _is_ours(entry)][-SHOWN:]:
        found += 1
        pid, name = KILLED.search(entry.message).groups()  # type: ignore[union-attr]
        mend = "Give engines less: a smaller model, context or number of slots; MemoryMax= of llama-engines.slice."
        yield problem("kernel", f"memory ran out at {local_time(entry.at)}: {name} (pid {pid}) was killed", mend)
    if not found:
        yield ok("kernel", "no faults of GPUs and no want of memory since the boot")


def _xids(entries: Sequence[Entry]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if match := XID.search(entry.message):
            found.setdefault((match[1], match[2]), []).append(local_time(entry.at))
    return found


def _is_ours(entry: Entry) -> bool:
    match = KILLED.search(entry.message)
    return bool(match and OURS.search(match[2]))
