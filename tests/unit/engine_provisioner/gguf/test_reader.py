"""The reader of GGUF headers: what it returns, and what it refuses."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.gguf import source as limits
from engine_provisioner.gguf.formats import QUANTIZATIONS, TENSOR_TYPES, ValueType
from engine_provisioner.gguf.header import Weights
from engine_provisioner.gguf.reader import GgufError, read_chat_template, read_header
from tests.engines.tiny_model import CHAT_TEMPLATE, HEADS, TINY
from tests.unit.engine_provisioner.gguf.gguf_files import LLAMA, FakeTensor, Value, array, gguf_bytes, string, u32

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return write_file


def refusal(path: Path) -> str:
    with pytest.raises(GgufError) as refused:
        read_header(path)
    return str(refused.value)


def test_header_of_real_model_is_read(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    assert (header.architecture, header.name, header.quantization) == ("llama", "tiny-random", "F32")
    assert (header.context_length, header.block_count) == (TINY.ctx, TINY.layers)
    assert (header.embedding_length, header.feed_forward_length) == (TINY.embd, 3 * TINY.embd)
    assert header.attention.heads == header.attention.kv_heads == (HEADS,) * TINY.layers
    assert header.attention.key_length == header.attention.value_length == TINY.embd // HEADS
    assert (header.split_count, header.expert_count, header.truncated_by) == (0, 0, 0)
    reader = gguf.GGUFReader(tiny_model)
    assert header.tensor_count == len(reader.tensors)
    assert header.weights.total == sum(tensor.n_bytes for tensor in reader.tensors)
    assert header.data_offset == reader.data_offset
    assert header.vocabulary_size == len(reader.fields["tokenizer.ggml.tokens"].data)
    assert header.has_chat_template
    assert read_chat_template(tiny_model) == CHAT_TEMPLATE


def test_tables_are_those_of_llama_cpp() -> None:
    assert {kind.value: (kind.name, *size) for kind, size in GGML_QUANT_SIZES.items()} == TENSOR_TYPES
    names = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    assert {number: name for number, name in names.items() if name != "GUESSED"} == QUANTIZATIONS
    assert {kind.name: kind.value for kind in gguf.GGUFValueType} == {kind.name: kind.value for kind in ValueType}


def test_quantization_is_that_of_file_type(write: Write) -> None:
    assert read_header(write(gguf_bytes(LLAMA))).quantization == "Q4_K_M"


def test_without_file_type_most_bytes_name_quantization(write: Write) -> None:
    tensors = [FakeTensor("a", (32,), kind=0), FakeTensor("b", (1024,), kind=8, offset=128)]
    assert read_header(write(gguf_bytes({}, tensors, 4096))).quantization == "Q8_0"


def test_keys_may_precede_architecture(write: Write) -> None:
    header = read_header(write(gguf_bytes(dict(reversed(LLAMA.items())))))
    assert (header.architecture, header.block_count, header.vocabulary_size) == ("llama", 2, 3)


def test_heads_may_differ_by_layer(write: Write) -> None:
    keys = LLAMA | {"llama.attention.head_count_kv": array(ValueType.INT32, [4, 0])}
    assert read_header(write(gguf_bytes(keys))).attention.kv_heads == (4, 0)


def test_missing_kv_heads_are_as_many_as_heads(write: Write) -> None:
    keys = {key: value for key, value in LLAMA.items() if not key.endswith("kv")}
    assert read_header(write(gguf_bytes(keys))).attention.kv_heads == (8, 8)


def test_split_and_experts_are_read(write: Write) -> None:
    more = {"split.count": u32(3), "split.no": u32(1), "llama.expert_count": u32(8), "llama.expert_used_count": u32(2)}
    header = read_header(write(gguf_bytes(LLAMA | more)))
    assert (header.split_count, header.split_no, header.expert_count, header.experts_used) == (3, 1, 8, 2)


def test_sliding_window_pattern_marks_layers(write: Write) -> None:
    more = {
        "llama.attention.sliding_window": u32(512),
        "llama.attention.sliding_window_pattern": array(ValueType.BOOL, [True, False]),
    }
    attention = read_header(write(gguf_bytes(LLAMA | more))).attention
    assert (attention.window, attention.windowed) == (512, (True, False))


def test_weights_are_sorted_by_place(write: Write) -> None:
    names = ("token_embd.weight", "blk.0.attn_q.weight", "blk.1.attn_q.weight", "output_norm.weight", "output.weight")
    tensors = [FakeTensor(name, (64,), offset=256 * place) for place, name in enumerate(names)]
    weights = read_header(write(gguf_bytes(LLAMA, tensors, 1280))).weights
    assert weights == Weights(blocks=(256, 256), input=256, output=256, other=256)


def test_tensor_of_unknown_type_reaches_to_next(write: Write) -> None:
    tensors = [FakeTensor("blk.0.a", (64,), kind=99), FakeTensor("blk.1.a", (64,), offset=1024)]
    assert read_header(write(gguf_bytes(LLAMA, tensors, 2048))).weights.blocks == (1024, 256)


def test_truncated_file_is_detected(write: Write) -> None:
    tensors = [FakeTensor("blk.0.a", (64,)), FakeTensor("blk.1.a", (64,), offset=256)]
    assert read_header(write(gguf_bytes(LLAMA, tensors, 512))).truncated_by == 0
    assert read_header(write(gguf_bytes(LLAMA, tensors, 500))).truncated_by == 12


def test_tensor_data_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    count = 1 << 40
    path.write_bytes(gguf_bytes(LLAMA, [FakeTensor("blk.0.a", (count,))]))
    os.truncate(path, path.stat().st_size + 4 * count)  # sparse: reading it would take an hour
    assert read_header(path).weights.total == 4 * count


def test_long_tokenizer_is_skipped_over_chunks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK", 16)
    tokens = ["x" * (place % 40) for place in range(500)]
    keys = {"tokenizer.ggml.tokens": array(ValueType.STRING, tokens)} | {
        k: v for k, v in LLAMA.items() if "ggml" not in k
    }
    header = read_header(write(gguf_bytes(keys)))
    assert (header.vocabulary_size, header.block_count) == (500, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not a GGUF file"),
        (b"<html>", "it is not a GGUF file"),
        (b"GGUF", "it ends in its header: 4 bytes are missing"),
        (gguf_bytes({}, version=1), "version 1 of GGUF"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), f"has {1 << 60} tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), f"has {1 << 60} keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "the name of a key has"),
        (gguf_bytes(LLAMA)[:200], "it ends in its header"),
        (gguf_bytes({"a": Value(ValueType.UINT8, 1)}).replace(b"a\0", b"a\x63", 1), "unknown type 99"),
        (gguf_bytes({"general.alignment": u32(1 << 30)}), "its alignment is"),
        (gguf_bytes({}, [FakeTensor("t", (1,) * 9)]), "9 dimensions"),
        (gguf_bytes({}, [FakeTensor("t", (1 << 60, 1 << 60))]), "impossible size"),
    ],
)
def test_invalid_file_is_refused_with_reason(write: Write, content: bytes, message: str) -> None:
    assert message in refusal(write(content))


def test_key_that_occurs_twice_is_refused(write: Write) -> None:
    content = gguf_bytes({"a.b": u32(1), "a.c": u32(2)}).replace(b"a.c", b"a.b")
    assert "twice" in refusal(write(content))


def test_too_many_strings_are_refused(write: Write) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    assert "strings in arrays" in refusal(write(head + struct.pack("<IIQ", 9, 8, 1 << 40)))


def test_deeply_nested_array_is_refused(write: Write) -> None:
    nested: Any = array(ValueType.UINT8, [1])
    for _ in range(50):
        nested = array(ValueType.ARRAY, [nested])
    assert "too deep" in refusal(write(gguf_bytes({"a": nested})))


def test_header_above_limit_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADER_LIMIT", 300)
    assert "its header has more than 300 bytes" in refusal(write(gguf_bytes(LLAMA, data_bytes=400)))


def test_directory_and_fifo_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path) == refusal(tmp_path / "fifo") == "it is not a regular file"
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "absent.gguf")


def test_long_text_is_skipped(write: Write) -> None:
    header = read_header(write(gguf_bytes({"general.name": string("x" * 5000)} | {"llama.block_count": u32(3)})))
    assert header.name is None


VALID = gguf_bytes(LLAMA, [FakeTensor("blk.0.a", (64,)), FakeTensor("blk.1.a", (64,), offset=256)], 512)


def survives(path: Path) -> None:
    """Read the file, which may be refused in no other way than by GgufError."""
    for read in (read_header, read_chat_template):
        try:
            read(path)
        except GgufError:
            continue


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "model.gguf"


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_never_crash_reader(scratch: Path, content: bytes, begins_well: bool) -> None:
    scratch.write_bytes((b"GGUF" + struct.pack("<I", 3) if begins_well else b"") + content)
    survives(scratch)


@given(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=8))
def test_damaged_file_never_crashes_reader(scratch: Path, place: int, damage: bytes) -> None:
    scratch.write_bytes(VALID[:place] + damage + VALID[place + len(damage) :])
    survives(scratch)


@given(st.integers(0, len(VALID) - 1))
def test_cut_file_is_refused_or_known_as_truncated(scratch: Path, size: int) -> None:
    scratch.write_bytes(VALID[:size])
    try:
        assert read_header(scratch).truncated_by > 0
    except GgufError:
        return


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 2**32 - 1), max_size=8))
def test_hostile_numbers_of_model_stay_bounded(scratch: Path, numbers: dict[str, int]) -> None:
    keys = LLAMA | {f"llama.{key}": u32(value) for key, value in numbers.items()}
    scratch.write_bytes(gguf_bytes(keys | {"llama.block_count": u32(2**32 - 1)}))
    header = read_header(scratch)
    assert len(header.attention.kv_heads) == header.block_count <= 4096
