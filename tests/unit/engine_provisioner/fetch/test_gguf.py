"""The size that a GGUF file must have follows from its header; no header makes the check fail otherwise."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.fetch.gguf import NotGguf, needed_size
from tests.unit.engine_provisioner.gguf_files import gguf, header


@pytest.mark.parametrize("size", [32, 4096, 100_000])
def test_complete_file_has_the_needed_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(size))
    assert needed_size(path) == path.stat().st_size


def test_real_model_is_complete(tiny_model: Path) -> None:
    assert needed_size(tiny_model) <= tiny_model.stat().st_size < needed_size(tiny_model) + 64


def test_header_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for length in range(len(header(32)) - 40):
        path.write_bytes(gguf()[:length])
        with pytest.raises(NotGguf):
            needed_size(path)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_damaged_header_never_ends_the_daemon(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    content = bytearray(gguf(64))
    content[4 + at : 4 + at + len(noise)] = noise
    path.write_bytes(bytes(content))
    with contextlib.suppress(NotGguf):
        assert needed_size(path) > 0
