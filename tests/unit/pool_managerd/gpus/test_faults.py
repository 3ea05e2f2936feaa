"""Lines of the kernel log, and the count of faults that two sources report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.gpus.faults import Counts, Fault, Reset, address, sighting_of
from pool_managerd.gpus.xids import OTHER, XIDS, Severity, label, xid

UUID = "GPU-455d8f70-2051-db6c-0430-ffc457bff834"
BUS = "0000:10:1c"
CHANGED = f"NVRM: Xid (PCI:{BUS}): 154, GPU recovery action changed from"
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("line", "code", "pci"),
    [
        ("NVRM: Xid (PCI:0000:10:1c): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", 79, BUS),
        ("NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked, reset gpu to activate.", 63, BUS),
        ("NVRM: Xid (PCI:0000:CB:00): 119, Timeout after 6s of waiting for RPC response", 119, "0000:cb:00"),
        ("NVRM: Xid (PCI:0000:c6:00 GPU-I:02): 94, Contained memory error", 94, "0000:c6:00"),
        ("NVRM: Xid (0000:03:00): 14, Channel 00000001", 14, "0000:03:00"),
        (f"{CHANGED} 0x0 (None) to 0x1 (GPU Reset Required)", 154, BUS),
    ],
)  # fmt: skip
def test_xids_are_read_from_the_kernel_log(line: str, code: int, pci: str) -> None:
    found = sighting_of(line, NOW)
    assert isinstance(found, Fault)
    assert (found.code, found.pci, found.at_s, found.source) == (code, pci, NOW, "kernel")
    assert found.recovery == ("gpu_reset" if code == 154 else None)


@pytest.mark.parametrize(
    ("line", "uuid", "pci"),
    [
        (f"{CHANGED} 0x1 (GPU Reset Required) to 0x0 (None)", None, BUS),
        (f"GPU reset executed: {UUID}, success: true", UUID, None),
        ("NVRM: GPU 0000:10:1c.0: GPU reset completed", None, "0000:10:1c"),
    ],
)  # fmt: skip
def test_resets_are_read_from_the_log(line: str, uuid: str | None, pci: str | None) -> None:
    found = sighting_of(line, NOW)
    assert isinstance(found, Reset)
    assert (found.uuid, found.pci) == (uuid, pci)


@pytest.mark.parametrize(
    "line",
    [
        "usb 1-1: new device",
        "NVRM: GPU at PCI:0000:10:1c: GPU-1",
        f"GPU reset executed: {UUID}, success: false",
        "GPU reset executed",
        "a user said: NVRM: Xid (PCI:0000:10:1c): 79, fallen",
    ],
)
def test_other_lines_tell_nothing(line: str) -> None:
    assert sighting_of(line, NOW) is None


@given(st.text(max_size=300))
def test_no_line_raises(rest: str) -> None:
    for line in (rest, f"NVRM: Xid ({rest}", f"NVRM: Xid (PCI:0000:10:1c): {rest}", f"GPU reset completed {rest}"):
        found = sighting_of(line, NOW)
        assert not isinstance(found, Fault) or len(found.text) <= 200


def test_addresses_are_compared_without_function_and_long_domain() -> None:
    assert address("00000000:10:1C.0") == address("0000:10:1c") == address("10:1c") == "0000:10:1c"


@given(st.lists(st.tuples(st.sampled_from(["nvml", "kernel"]), st.sampled_from([13, 79])), max_size=30))
def test_fault_of_both_sources_counts_once(sightings: list[tuple[str, int]]) -> None:
    counts, by_source = Counts(), {"nvml": [0, 0], "kernel": [0, 0]}
    told = 0
    for source, code in sightings:
        told += counts.add(source, "GPU-0", code)
        by_source[source][code == 79] += 1
    largest = [max(by_source["nvml"][number], by_source["kernel"][number]) for number in (0, 1)]
    assert [counts.total["GPU-0", 13], counts.total["GPU-0", 79]] == largest
    assert told == sum(largest)


def test_source_that_was_opened_again_counts_on() -> None:
    counts = Counts()
    counts.add("nvml", "GPU-0", 79)
    counts.realign("kernel")
    assert counts.add("kernel", "GPU-0", 79)
    assert counts.total["GPU-0", 79] == 2


def test_application_faults_are_those_of_nvidias_plugin() -> None:
    codes = {code for code, known in XIDS.items() if known.severity is Severity.APPLICATION and code}
    assert codes == {13, 31, 43, 45, 68, 109}


@pytest.mark.parametrize("code", [48, 64, 74, 79, 92, 94, 95, 119, 120, 140])
def test_hardware_faults_say_what_to_do(code: int) -> None:
    assert xid(code).severity is Severity.HARDWARE
    assert any(word in xid(code).action for word in ("reset", "reboot", "restart"))


@given(st.integers(0, 10**6))
def test_labels_of_codes_are_bounded(code: int) -> None:
    assert label(code) in {OTHER, "single_bit_ecc", *map(str, XIDS)}
    assert (xid(code).severity is Severity.NOTICE) or code in XIDS
