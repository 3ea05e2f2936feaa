"""One scan of a handoff directory."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_orch.spool import BadFile, HandoffFile, SpoolUnreadable, scan
from llama_orch.spool.files import open_directory, read_one
from llama_orch.spool.handoffs import GRACE_S
from llama_orch.spool.identity import printable
from tests.unit.llama_orch.spool.samples import GOOD, NEEDS_ROOT, ODD_ENTRIES, OWNERS, age, publish

NOW_S = 2_000_000_000.0


def look(directory: Path, now_s: float = NOW_S) -> tuple[HandoffFile | BadFile, ...]:
    return scan(directory, owners=OWNERS, now_s=now_s)


def test_handoff_has_identity_of_its_file(tmp_path: Path) -> None:
    path = publish(tmp_path)
    (found,) = look(tmp_path)
    assert isinstance(found, HandoffFile)
    assert found.handoff.url == "http://127.0.0.1:18080"
    status = path.stat()
    assert found.identity.same_file(status.st_ino, status.st_mtime_ns)
    assert len(found.identity.sha256) == 64


def test_file_name_may_differ_from_pool_id(tmp_path: Path) -> None:
    publish(tmp_path, "anything.json")
    assert [type(item) for item in look(tmp_path)] == [HandoffFile]


@pytest.mark.parametrize("name", [".default-r0.json", "default-r0.json.tmp", "README", "rejected"])
def test_other_file_names_are_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not ours")
    assert look(tmp_path) == ()


@pytest.mark.parametrize("kind", ODD_ENTRIES)
def test_bad_entry_is_reported_beside_good_one(tmp_path: Path, kind: str) -> None:
    if kind in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("giving a file to another user takes root")
    make, reason = ODD_ENTRIES[kind]
    make(tmp_path / "bad.json")
    publish(tmp_path, "good.json")
    bad, good = look(tmp_path)
    assert isinstance(bad, BadFile)
    assert bad.name == "bad.json"
    assert reason in bad.reason
    assert isinstance(good, HandoffFile)


def test_each_invalid_field_is_named(tmp_path: Path) -> None:
    publish(tmp_path, pool_id="Not A Pool", slots_total=0)
    (bad,) = look(tmp_path)
    assert isinstance(bad, BadFile)
    assert "pool_id: " in bad.reason
    assert "slots_total: " in bad.reason


def test_young_incomplete_file_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(GOOD)[:20])
    touched = path.stat().st_mtime
    assert look(tmp_path, touched + GRACE_S / 2) == ()
    (bad,) = look(tmp_path, touched + GRACE_S * 2)
    assert isinstance(bad, BadFile)


def test_file_from_future_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "future.json"
    path.write_text("{")
    age(path, seconds=-86_400)
    (bad,) = look(tmp_path, path.stat().st_mtime - 86_400)
    assert isinstance(bad, BadFile)


def test_complete_json_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    (bad,) = look(tmp_path, path.stat().st_mtime)
    assert isinstance(bad, BadFile)


def test_missing_directory_is_empty(tmp_path: Path) -> None:
    assert look(tmp_path / "missing") == ()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_link_or_file_is_not_a_spool_directory(tmp_path: Path, kind: str) -> None:
    spool = tmp_path / "engines"
    if kind == "file":
        spool.write_text("")
    else:
        (tmp_path / "real").mkdir()
        spool.symlink_to(tmp_path / "real")
    with pytest.raises(SpoolUnreadable, match=r"engines is a link or not a directory"):
        look(spool)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Exhaust the file descriptors of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open("/dev/null", os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_out_of_descriptors_rejects_no_file(tmp_path: Path) -> None:
    name = publish(tmp_path).name
    with open_directory(tmp_path) as fd:
        assert fd is not None
        with no_more_descriptors(), pytest.raises(SpoolUnreadable, match="Too many open files"):
            read_one(fd, name, OWNERS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb.json", r"a\nb.json"), ("\x1b[31m", r"\x1b[31m"), ("\udcff.json", r"\xff.json"), ("ü", "ü")],
)
def test_names_are_escaped_in_logs(name: str, shown: str) -> None:
    assert printable(name) == shown
