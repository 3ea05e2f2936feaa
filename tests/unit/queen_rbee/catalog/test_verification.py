"""Verification compares a digest with the file and the reports of pools; hashing refuses unsafe files."""

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
from llama_orch.files.digest import FileUnreadable, file_digest, local_path
from queen_rbee.catalog.verification import (
    Evidence,
    VerificationOutcome,
    can_be_reconsidered,
    digests_by_model,
    judge,
    reconsider,
    verify,
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


async def verified(model: CatalogModel, *pools: PoolStatus) -> VerificationOutcome:
    return await verify(model, lambda: pools, [Path("/tmp")])


async def test_file_with_given_digest_is_verified(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    outcome = await verified(model(f"file:{path}", digest_of(b"weights")))
    assert (outcome.state, outcome.reason, outcome.message, outcome.engine) == (S.VERIFIED, "file", None, "")
    assert outcome.verification(NOW) == Verification(state=S.VERIFIED, checked_at=NOW, actual=digest_of(b"weights"))


async def test_mismatch_message_does_not_reveal_digest(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"other")
    outcome = await verified(model(f"file:{path}", RIGHT))
    assert (outcome.state, outcome.reason, outcome.actual) == (S.MISMATCH, "file", digest_of(b"other"))
    assert outcome.message == "the digest of the file differs from the catalog"


async def test_pool_report_counts_for_any_name_of_model():
    outcome = await verified(model("tiny"), pool(tiny=RIGHT, other=WRONG))
    assert (outcome.state, outcome.reason, outcome.engine) == (S.VERIFIED, "pool_report", "llamacpp")


async def test_one_pool_with_other_file_is_a_mismatch():
    outcome = await verified(model(), pool(tiny=RIGHT), pool("q", "vllm", tiny=WRONG))
    assert (outcome.state, outcome.reason, outcome.engine) == (S.MISMATCH, "pool_report", "vllm")
    assert outcome.message == "the digest of pool q differs from the catalog"


async def test_pool_with_other_file_overrides_correct_file(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    outcome = await verified(model(f"file:{path}", digest_of(b"weights")), pool(tiny=WRONG))
    assert outcome.state is S.MISMATCH


@pytest.mark.parametrize(
    ("model_ref", "problem"),
    [
        ("hf:org/repo/tiny.gguf", "the model is not a file: reference"),
        ("file:/tmp/none/tiny.gguf", "the queen cannot read /tmp/none/tiny.gguf: No such file or directory"),
        ("file:/tmp", "the queen cannot read /tmp: not a regular file"),
        ("file:/tmp/a\0b", "the queen cannot read /tmp/a\0b: embedded null byte"),
    ],
)
async def test_outcome_without_evidence_explains_how_to_get_it(model_ref: str, problem: str):
    outcome = await verified(model(model_ref))
    assert (outcome.state, outcome.reason) == (S.UNAVAILABLE, "no_source")
    assert (
        outcome.message == f"{problem}, and no pool reports a verified digest of it (model.checksum in the pools file)"
    )


async def test_model_without_digest_is_unverified():
    outcome = await verified(model(digest=None), pool(tiny=RIGHT))
    assert (outcome.state, outcome.reason) == (S.UNVERIFIED, "no_digest")
    assert "delete the model and add it again with one" in (outcome.message or "")


async def test_pools_are_read_after_the_file(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    calls: list[bool] = []

    def pools() -> list[PoolStatus]:
        calls.append(True)
        return [pool(tiny=WRONG)]

    with trio.CancelScope() as scope:
        scope.cancel()
        await verify(model(f"file:{path}"), pools, [tmp_path])
    assert not calls
    assert (await verify(model(f"file:{path}", digest_of(b"weights")), pools, [tmp_path])).state is S.MISMATCH


evidences = st.lists(st.builds(Evidence, st.sampled_from([RIGHT, WRONG]), st.just("x"), st.just("file")), max_size=4)


@settings(deadline=None)
@given(evidences)
def test_verification_requires_unanimous_evidence(evidence: list[Evidence]):
    digests = {found.digest for found in evidence}
    expected = S.UNAVAILABLE if not digests else S.VERIFIED if digests == {RIGHT} else S.MISMATCH
    assert judge(RIGHT, evidence, "x").state is expected


@pytest.mark.parametrize(
    ("known", "digests", "changed"),
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
def test_later_report_counts_only_if_it_changes_state(
    known: VerificationState, digests: dict[str, str], changed: VerificationState | None
):
    known_model = model(state=known)
    outcome = reconsider(known_model, digests_by_model([pool(**digests)])) if can_be_reconsidered(known_model) else None
    assert (outcome and outcome.state) == changed


def test_reported_digest_is_case_insensitive():
    assert [found.digest for found in digests_by_model([pool(tiny=RIGHT.upper())])["tiny"]] == [RIGHT]


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
def test_local_path_of_file_reference(model_ref: str, path: str | None):
    assert local_path(model_ref) == (None if path is None else Path(path))


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(1, 9))
def test_digest_is_independent_of_block_size(data: bytes, block: int):
    async def play() -> None:
        with pytest.MonkeyPatch.context() as patch, tempfile.NamedTemporaryFile() as file:
            patch.setattr(hashing, "BLOCK", block)
            file.write(data)
            file.flush()
            assert await file_digest(Path(file.name), [Path(file.name).parent]) == digest_of(data)

    trio.run(play)


@pytest.mark.parametrize("data", [b"WEIGHTS", b"w"])
async def test_file_that_changes_during_hashing_is_unreadable(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, read = tmp_path / "m", hashing._hash_block
    path.write_bytes(b"weights")

    def meddling(file: FileIO, hasher: "hashlib._Hash") -> int:
        path.write_bytes(data)
        os.utime(path, ns=(1, 1))
        return read(file, hasher)

    monkeypatch.setattr(hashing, "_hash_block", meddling)
    with pytest.raises(FileUnreadable, match="the file changed while it was read"):
        await file_digest(path, [path.parent])


async def test_truncated_file_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m"  # like some files in /proc
    path.write_bytes(b"weights")
    monkeypatch.setattr(hashing, "_hash_block", lambda _file, _hasher: 0)
    with pytest.raises(FileUnreadable, match="the file changed while it was read"):
        await file_digest(path, [path.parent])


async def test_endless_file_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m"
    path.write_bytes(b"weights")
    monkeypatch.setattr(hashing, "_hash_block", lambda _file, _hasher: 4)
    with pytest.raises(FileUnreadable, match="the file grows while it is read"):
        await file_digest(path, [path.parent])


async def test_hashing_leaks_no_descriptor(tmp_path: Path):
    path = tmp_path / "m"
    path.write_bytes(b"weights")
    before = set(os.listdir("/proc/self/fd"))
    await file_digest(path, [path.parent])
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileUnreadable):
            await file_digest(wrong, [tmp_path])
    assert set(os.listdir("/proc/self/fd")) == before


async def test_fifo_is_refused_without_waiting(tmp_path: Path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with trio.fail_after(5), pytest.raises(FileUnreadable, match="not a regular file"):
        await file_digest(path, [path.parent])


async def test_read_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m"
    path.write_bytes(b"weights")

    def failing(_file, _hasher) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashing, "_hash_block", failing)
    with pytest.raises(FileUnreadable, match="Input/output error"):
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
async def test_file_outside_model_directories_is_refused(tmp_path: Path, reference: str):
    models, other = tmp_path / "models", tmp_path / "models-other"
    models.mkdir()
    other.mkdir()
    for secret in (tmp_path / "secret", other / "secret"):
        secret.write_bytes(b"secret")
    (models / "link").symlink_to(tmp_path / "secret")
    (models / "down").symlink_to(other)
    path = reference.format(models=models)
    outcome = await verify(model(f"file:{path}", RIGHT), list, [models])
    assert (outcome.state, outcome.actual) == (S.UNAVAILABLE, None)
    reason = "not a regular file" if path.endswith("/.") else "not below a model directory"
    assert reason in (outcome.message or "")


async def test_link_within_model_directories_is_followed(tmp_path: Path):
    (tmp_path / "v2.gguf").write_bytes(b"weights")
    (tmp_path / "current.gguf").symlink_to("v2.gguf")
    root = tmp_path.with_name(f"{tmp_path.name}-root")
    root.symlink_to(tmp_path)
    assert await file_digest(tmp_path / "current.gguf", [root]) == digest_of(b"weights")


async def test_link_created_during_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
    with pytest.raises(FileUnreadable, match="not below a model directory"):
        await file_digest(models / "m", [models])
