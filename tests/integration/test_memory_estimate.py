"""The memory estimate against the buffer sizes that a real llama-server logs."""

import re
from pathlib import Path

import pytest

from engine_provisioner.gguf.reader import read_header
from engine_provisioner.memory.estimate import estimate
from engine_provisioner.memory.plan import plan_of
from tests.engines.running import running_engine

MIB = 1 << 20
VERBOSE = ("-lv", "4")
QUANTIZED = ("--cache-type-k", "q8_0", "--cache-type-v", "q4_0")


def logged_mib(log: str, buffer: str) -> float:
    """Return the last logged size of a kind of buffer."""
    sizes = re.findall(rf"CPU(?:_Mapped)? {buffer} buffer size = +([0-9.]+) MiB", log)
    assert sizes, log
    return float(sizes[-1])


@pytest.mark.parametrize(
    ("ctx", "slots", "flags"),
    [
        (512, 1, ()),
        (1000, 3, ()),
        (2048, 2, QUANTIZED),
        (2048, 2, ("--flash-attn", "off")),
        (1000, 2, ("--kv-unified",)),
    ],
    ids=["small", "slots", "quantized", "plain attention", "unified"],
)
def test_estimate_matches_log_of_engine(
    llama_server: Path, slow_model: Path, ctx: int, slots: int, flags: tuple[str, ...]
) -> None:
    with running_engine(llama_server, slow_model, ctx=ctx, slots=slots, flags=(*flags, *VERBOSE)) as engine:
        log = engine.log()
    guess = estimate(read_header(slow_model), plan_of(["-c", str(ctx * slots), "-np", str(slots), *flags], 0))
    assert guess.host_weights / MIB == pytest.approx(logged_mib(log, "model"), abs=0.01)
    assert guess.host_kv / MIB == pytest.approx(logged_mib(log, "KV"), abs=0.01)
    assert guess.host_compute / MIB == pytest.approx(logged_mib(log, "compute"), abs=1.5)
