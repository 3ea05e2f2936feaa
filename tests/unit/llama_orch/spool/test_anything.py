"""Property tests: with any directory contents a scan raises nothing and finds the valid file."""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.spool import BadFile, HandoffFile, reject, scan
from tests.unit.llama_orch.spool.samples import GOOD, NEEDS_ROOT, ODD_ENTRIES, OWNERS, publish

MAKEABLE = sorted(set(ODD_ENTRIES) - (NEEDS_ROOT if os.geteuid() else set()))

NOW = datetime(2100, 1, 1, tzinfo=UTC)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner))
FIELDS = [
    *("schema", "pool_id", "replica_id", "engine", "engine_version", "provisioning_mode", "url", "model"),
    *("device_mask", "slots_total", "slots_free", "flags", "pid", "unit", "created_at", "unknown"),
]
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "file", ""]),
    st.sampled_from(["127.0.0.1", "[::1]", "localhost", "10.1.1.1", "[::ffff:1.2.3.4]", "a@127.0.0.1", "[", "127.1"]),
    st.sampled_from([":80", ":0", ":99999", "", ":-1", ":\uff11"]),
    st.text(max_size=5),
)


def mutate(changes: dict[str, object], dropped: list[str]) -> bytes:
    document = {key: value for key, value in (GOOD | changes).items() if key not in dropped}
    return json.dumps(document).encode("utf-8", "surrogatepass")


mutations = st.builds(
    mutate,
    st.dictionaries(st.sampled_from(FIELDS), values) | st.fixed_dictionaries({"url": urls}),
    st.lists(st.sampled_from(["pool_id", "url", "engine_version"]), max_size=1),
)
torn = st.builds(lambda content, cut: content[:cut], mutations, st.integers(0, 200))
nested = st.builds(lambda depth: b"[" * depth, st.integers(1, 60_000))
contents = st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode()) | mutations | torn | nested
names = st.binary(min_size=1, max_size=60).filter(lambda name: not {0, 0x2F} & set(name)).map(os.fsdecode)
modes = st.sampled_from([0o000, 0o400, 0o640, 0o666, 0o4777])


@given(content=contents, name=names, mode=modes, padding=st.sampled_from([0, 0, 0, 65_000, 70_000]))
def test_any_contents_under_any_name(content: bytes, name: str, mode: int, padding: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        spool = Path(temporary)
        odd = spool / f"{name}.json"
        odd.write_bytes(content + b" " * padding)
        odd.chmod(mode)
        good = publish(spool, "good.json")
        scan_twice(spool, odd, good)


@given(kinds=st.lists(st.sampled_from(MAKEABLE), max_size=4))
def test_any_kinds_of_entries(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        spool = Path(temporary)
        for index, kind in enumerate(kinds):
            (spool / f"{index}").mkdir()
            make, _reason = ODD_ENTRIES[kind]
            make(spool / f"{index}" / "odd.json")
            (spool / f"{index}" / "odd.json").rename(spool / f"odd{index}.json")
        good = publish(spool, "good.json")
        scan_twice(spool, spool / "odd.json", good)


def scan_twice(spool: Path, odd: Path, good: Path) -> None:
    """Scan, reject the bad files, scan again: the valid file is found twice, bad files only the first time."""
    before = good.read_bytes()
    first = look(spool)
    assert good.name in {item.identity.name for item in first if isinstance(item, HandoffFile)}
    for item in first:
        if isinstance(item, BadFile):
            assert item.reason
            assert reject(spool, item, NOW).moved_to
    second = look(spool)
    assert all(isinstance(item, HandoffFile) for item in second)
    assert good.read_bytes() == before


def look(spool: Path) -> tuple[HandoffFile | BadFile, ...]:
    return scan(spool, owners=OWNERS, now_s=NOW.timestamp())
