"""Memory that is free is the system's again."""

import gc
from pathlib import Path

from llama_orch.service.memory import give_back

MANY = 400_000


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_what_was_freed_is_given_back() -> None:
    # small blocks of more than 512 bytes come from malloc, which keeps what is freed below a block that is used
    blocks: list[bytearray | None] = [bytearray(1000) for _ in range(MANY)]
    last = blocks[-1]
    blocks.clear()
    before, thresholds = resident_kib(), gc.get_threshold()
    give_back()
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    assert last is not None
    assert before - resident_kib() > MANY // 4
