"""A digest that is given is checked against everything that can be found of the model, and every doubt is told."""

import hashlib
import os
import tempfile
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.catalog import CatalogModel, Verification, VerificationState
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.files import digest as hashing
from llama_orch.files.digest import Unreadable, file_digest, local_path
from queen_rbee.catalog.verification import (
    Evidence,
    Outcome,
    check,
    judged,
    reconsiderable,
    reconsidered,
    reported,
    reports_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RIGHT, WRONG = "sha256:" + "a" * 64, "sha256:" + "b" * 64
S = VerificationState


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pool(pool_id: str = "p", engine: str = "llamacpp", **digests: str) -> PoolStatus:
    return PoolStatus(
        pool_id=pool_id,
        state=PoolState.READY,
        live=True,
        ready=True,
        draining=False,
        engine=engine,
        models_available=list(digests),
        model_digests={f"hf:org/repo/{name}.gguf": digest for name, digest in digests.items()},
    )


def model(model_ref: str = "hf:org/repo/tiny.gguf", digest: str | None = RIGHT, **found) -> CatalogModel:
    verification = Verification(**found)
    return CatalogModel(
        id="m", model_ref=model_ref, digest=digest, created_at=NOW, updated_at=NOW, verification=verification
    )


async def checked(model: CatalogModel, *pools: PoolStatus) -> Outcome:
    return await check(model, lambda: pools, [Path("/tmp")])


async def test_a_file_with_the_digest_is_verified(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    outcome = await checked(model(f"file:{path}", digest_of(b"weights")))
    assert (outcome.state, outcome.reason, outcome.words, outcome.engine) == (S.VERIFIED, "file", None, "")
    assert outcome.verification(NOW) == Verification(state=S.VERIFIED, checked_at=NOW, actual=digest_of(b"weights"))


async def test_another_file_is_a_mismatch_without_its_digest_in_words(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"other")
    outcome = await checked(model(f"file:{path}", RIGHT))
    assert (outcome.state, outcome.reason, outcome.actual) == (S.MISMATCH, "file", digest_of(b"other"))
    assert outcome.words == "its file has another digest than the catalog"


async def test_what_a_pool_reports_of_the_model_counts_by_whatever_name():
    outcome = await checked(model("tiny"), pool(tiny=RIGHT, other=WRONG))
    assert (outcome.state, outcome.reason, outcome.engine) == (S.VERIFIED, "pool_report", "llamacpp")


async def test_one_pool_with_another_file_is_enough_for_a_mismatch():
    outcome = await checked(model(), pool(tiny=RIGHT), pool("q", "vllm", tiny=WRONG))
    assert (outcome.state, outcome.reason, outcome.engine) == (S.MISMATCH, "pool_report", "vllm")
    assert outcome.words == "pool q has another digest than the catalog"


async def test_a_right_file_does_not_excuse_a_pool_that_serves_another(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    outcome = await checked(model(f"file:{path}", digest_of(b"weights")), pool(tiny=WRONG))
    assert outcome.state is S.MISMATCH


@pytest.mark.parametrize(
    ("model_ref", "words"),
    [
        ("hf:org/repo/tiny.gguf", "the model is no file: of this machine"),
        ("file:/tmp/none/tiny.gguf", "the queen cannot read /tmp/none/tiny.gguf: No such file or directory"),
        ("file:/tmp", "the queen cannot read /tmp: it is not a regular file"),
        ("file:/tmp/a\0b", "the queen cannot read /tmp/a\0b: embedded null byte"),
    ],
)
async def test_where_nothing_can_be_checked_that_is_said_with_the_way_to_mend_it(model_ref: str, words: str):
    outcome = await checked(model(model_ref))
    assert (outcome.state, outcome.reason) == (S.UNAVAILABLE, "no_source")
    assert outcome.words == f"{words}, and no pool reports a checked digest of it (model.checksum in the pools file)"


async def test_without_a_digest_there_is_nothing_to_check():
    outcome = await checked(model(digest=None), pool(tiny=RIGHT))
    assert (outcome.state, outcome.reason) == (S.UNVERIFIED, "no_digest")
    assert "delete the model and post it with one" in (outcome.words or "")


async def test_pools_are_asked_when_the_file_has_been_read(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    asked: list[bool] = []

    def pools() -> list[PoolStatus]:
        asked.append(True)
        return [pool(tiny=WRONG)]

    with trio.CancelScope() as scope:
        scope.cancel()
        await check(model(f"file:{path}"), pools, [tmp_path])
    assert not asked
    assert (await check(model(f"file:{path}", digest_of(b"weights")), pools, [tmp_path])).state is S.MISMATCH


evidences = st.lists(st.builds(Evidence, st.sampled_from([RIGHT, WRONG]), st.just("x"), st.just("file")), max_size=4)


@settings(deadline=None)
@given(evidences)
def test_all_evidence_must_agree_and_without_any_nothing_is_verified(evidence: list[Evidence]):
    digests = {found.digest for found in evidence}
    wanted = S.UNAVAILABLE if not digests else S.VERIFIED if digests == {RIGHT} else S.MISMATCH
    assert judged(RIGHT, evidence, "x").state is wanted


@pytest.mark.parametrize(
    ("known", "digests", "news"),
    [
        (S.UNAVAILABLE, {"tiny": RIGHT}, S.VERIFIED),
        (S.UNAVAILABLE, {"tiny": WRONG}, S.MISMATCH),
        (S.VERIFIED, {"tiny": WRONG}, S.MISMATCH),
        (S.VERIFIED, {"tiny": RIGHT}, None),
        (S.VERIFIED, {}, None),
        (S.UNAVAILABLE, {"other": WRONG}, None),
        (S.MISMATCH, {"tiny": RIGHT}, None),
        (S.PENDING, {"tiny": WRONG}, None),
        (S.UNVERIFIED, {"tiny": WRONG}, None),
    ],
)
def test_what_pools_report_later_is_news_only_where_it_changes_the_outcome(
    known: VerificationState, digests: dict[str, str], news: VerificationState | None
):
    known_model = model(state=known)
    outcome = reconsidered(known_model, reports_of([pool(**digests)])) if reconsiderable(known_model) else None
    assert (outcome and outcome.state) == news


def test_reports_in_capitals_are_the_same_digests():
    assert [found.digest for found in reported("tiny", reports_of([pool(tiny=RIGHT.upper())]))] == [RIGHT]


@pytest.mark.parametrize(
    ("model_ref", "path"),
    [
        ("file:/a/b.gguf", "/a/b.gguf"),
        ("file:///a/b.gguf", "/a/b.gguf"),
        ("file:/a%20b", "/a%20b"),
        ("hf:org/repo/b.gguf", None),
        ("/a/b.gguf", None),
        ("file", None),
    ],
)
def test_a_path_is_what_a_file_reference_names(model_ref: str, path: str | None):
    assert local_path(model_ref) == (None if path is None else Path(path))


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(1, 9))
def test_the_digest_is_that_of_all_bytes_whatever_the_size_of_the_blocks(data: bytes, block: int):
    async def play() -> None:
        with pytest.MonkeyPatch.context() as patch, tempfile.NamedTemporaryFile() as file:
            patch.setattr(hashing, "BLOCK", block)
            file.write(data)
            file.flush()
            assert await file_digest(Path(file.name), [Path(file.name).parent]) == digest_of(data)

    trio.run(play)


@pytest.mark.parametrize("data", [b"WEIGHTS", b"w"])
async def test_a_file_that_changes_while_it_is_read_has_no_digest(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, read = tmp_path / "m", hashing._hash_block
    path.write_bytes(b"weights")

    def meddling(file: FileIO, hasher: "hashlib._Hash") -> int:
        path.write_bytes(data)
        os.utime(path, ns=(1, 1))
        return read(file, hasher)

    monkeypatch.setattr(hashing, "_hash_block", meddling)
    with pytest.raises(Unreadable, match="it changed while it was read"):
        await file_digest(path, [path.parent])


async def test_a_file_that_is_shorter_than_it_says_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m"  # as some of the kernel's are
    path.write_bytes(b"weights")
    monkeypatch.setattr(hashing, "_hash_block", lambda _file, _hasher: 0)
    with pytest.raises(Unreadable, match="it changed while it was read"):
        await file_digest(path, [path.parent])


async def test_a_file_without_an_end_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m"
    path.write_bytes(b"weights")
    monkeypatch.setattr(hashing, "_hash_block", lambda _file, _hasher: 4)
    with pytest.raises(Unreadable, match="it grows while it is read"):
        await file_digest(path, [path.parent])


async def test_no_descriptor_stays_open(tmp_path: Path):
    path = tmp_path / "m"
    path.write_bytes(b"weights")
    before = set(os.listdir("/proc/self/fd"))
    await file_digest(path, [path.parent])
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(Unreadable):
            await file_digest(wrong, [tmp_path])
    assert set(os.listdir("/proc/self/fd")) == before


async def test_nobody_waits_for_the_writer_of_a_fifo(tmp_path: Path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with trio.fail_after(5), pytest.raises(Unreadable, match="not a regular file"):
        await file_digest(path, [path.parent])


async def test_a_disk_that_fails_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m"
    path.write_bytes(b"weights")

    def failing(_file, _hasher) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashing, "_hash_block", failing)
    with pytest.raises(Unreadable, match="Input/output error"):
        await file_digest(path, [path.parent])


@pytest.mark.parametrize(
    "reference",
    [
        "/etc/passwd",
        "/etc/none",
        "{models}/../secret",
        "{models}/link",
        "{models}/down/secret",
        "{models}-other/secret",
        "{models}/.",
    ],
)
async def test_the_digest_of_no_file_outside_is_told(tmp_path: Path, reference: str):
    models, other = tmp_path / "models", tmp_path / "models-other"
    models.mkdir()
    other.mkdir()
    for secret in (tmp_path / "secret", other / "secret"):
        secret.write_bytes(b"secret")
    (models / "link").symlink_to(tmp_path / "secret")
    (models / "down").symlink_to(other)
    path = reference.format(models=models)
    outcome = await check(model(f"file:{path}", RIGHT), list, [models])
    assert (outcome.state, outcome.actual) == (S.UNAVAILABLE, None)
    reason = "it is not a regular file" if path.endswith("/.") else "it is not below a model directory"
    assert reason in (outcome.words or "")


async def test_a_link_within_the_model_directories_is_followed(tmp_path: Path):
    (tmp_path / "v2.gguf").write_bytes(b"weights")
    (tmp_path / "current.gguf").symlink_to("v2.gguf")
    root = tmp_path.with_name(f"{tmp_path.name}-root")
    root.symlink_to(tmp_path)
    assert await file_digest(tmp_path / "current.gguf", [root]) == digest_of(b"weights")


async def test_a_link_that_is_put_in_place_meanwhile_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    models = tmp_path / "models"
    models.mkdir()
    (models / "m").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(b"secret")
    opened = os.open

    def swapping(path: Path, flags: int) -> int:
        (models / "m").unlink()
        (models / "m").symlink_to(tmp_path / "secret")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(Unreadable, match="not below a model directory"):
        await file_digest(models / "m", [models])
