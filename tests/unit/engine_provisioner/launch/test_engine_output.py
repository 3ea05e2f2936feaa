"""The exit message quotes the line of output that gives the cause."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.launch.engine_output import (
    EXIT_HINTS,
    LINE_LIMIT,
    clean_line,
    exit_cause,
    exit_message,
    level_of,
    severity_of,
)

TRUNCATED = [
    "0.00.009.532 I srv    load_model: loading model '/tmp/m.gguf'",
    "0.00.010.285 E llama_model_load: error loading model: tensor 'blk.1.attn_q.weight' data is not within bounds",
    "0.00.010.294 E llama_model_load_from_file_impl: failed to load model",
    "0.00.010.458 E cmn  common_init_: failed to load model '/tmp/m.gguf'",
    "0.00.010.460 I srv    operator(): operator(): cleaning up before exit...",
    "0.00.010.648 E srv  llama_server: exiting due to model loading error",
]


def test_cause_comes_before_the_last_line() -> None:
    assert exit_message("ended with status 1", TRUNCATED) == (
        "the engine ended with status 1: llama_model_load: error loading model: tensor 'blk.1.attn_q.weight' data is"
        " not within bounds; its last line: srv  llama_server: exiting due to model loading error"
    )


def test_cause_in_the_last_line_is_quoted_once() -> None:
    assert exit_message("ended with status 1", ["error: invalid argument: --frob"]) == (
        "the engine ended with status 1: error: invalid argument: --frob"
    )


def test_killed_healthy_engine_has_no_cause() -> None:
    lines = ["0.00.021.961 I srv  llama_server: listening on http://127.0.0.1:1"]
    assert exit_message("was killed by SIGKILL", lines) == (
        "the engine was killed by SIGKILL; its last line: srv  llama_server: listening on http://127.0.0.1:1"
    )


def test_engine_without_output() -> None:
    assert exit_message("ended with status 0", ["", " "]) == "the engine ended with status 0 without any output"


def test_level_letters() -> None:
    assert [level_of(line) for line in (TRUNCATED[0], TRUNCATED[1], "plain")] == ["I", "E", "-"]


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("0.00.114.458 I srv  llama_server: listening on http://127.0.0.1:1", logging.DEBUG),
        ("0.00.067.016 W srv  llama_server: security: no API key is set", logging.WARNING),
        (TRUNCATED[1], logging.ERROR),
        ("0.03.066.114 I slot print_timing: id  0 | task 0 | prompt eval time = 15.94 ms", logging.DEBUG),
        ("0.03.111.315 W slot   operator(): id  0 | task 5 | n_past was set to 1", logging.DEBUG),
        ("0.03.111.315 E srv    send_error: task id = 7, error: request exceeds the context", logging.DEBUG),
        ("llama_model_loader: loaded meta data with 24 key-value pairs", logging.DEBUG),
        ("ggml.c:100: GGML_ASSERT(n > 0) failed", logging.WARNING),
        ("CUDA error: out of memory", logging.WARNING),
    ],
)
def test_severity_of_a_line(line: str, severity: int) -> None:
    assert severity_of(line) == severity


@given(st.binary(max_size=5000))
def test_cleaned_line_is_bounded_and_printable(raw: bytes) -> None:
    line = clean_line(raw.replace(b"\n", b""))
    assert len(line) <= LINE_LIMIT
    assert not any(ord(character) < 32 and character != "\t" for character in line)


CUDA = [
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory",
    "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
    "srv    load_model: failed to load model, '/m.gguf'",
]
VULKAN = ["ggml_vulkan: Device memory allocation of size 9000000000 failed.", "ggml_vulkan: ErrorOutOfDeviceMemory"]
KV_CACHE = ["llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"]


@pytest.mark.parametrize(
    ("manner", "lines", "cause"),
    [
        ("ended with status 1", CUDA, "vram"),
        ("was killed by SIGABRT", ["CUDA error: out of memory", "ggml-cuda.cu:90: CUDA error"], "vram"),
        ("ended with status 1", VULKAN, "vram"),
        (
            "ended with status 1",
            ["alloc_tensor_range: failed to allocate ROCm1 buffer of size 9000", *KV_CACHE],
            "vram",
        ),
        ("ended with status 1", ["failed to allocate 512.00 MiB of pinned memory: out of memory", "error: x"], "ended"),
        ("ended with status 1", ["alloc_tensor_range: failed to allocate CPU buffer of size 9000"], "oom"),
        ("was killed by SIGABRT", ["terminate called after throwing an instance of 'std::bad_alloc'"], "oom"),
        ("was killed by SIGKILL, out of memory", CUDA, "oom"),
        ("was killed by SIGSEGV", ["main: error: something"], "killed"),
        ("was stopped", CUDA, "ended"),
    ],
)
def test_shortage_of_gpu_memory_is_told_from_others(manner: str, lines: list[str], cause: str) -> None:
    assert exit_cause(exit_message(manner, lines)) == cause


def test_each_shortage_has_a_hint_that_keeps_layers_on_the_gpu() -> None:
    assert all(word in EXIT_HINTS["vram"] for word in ("slots", "ctx", "devices", "-ctk"))
    assert "MemoryMax=" in EXIT_HINTS["oom"]
    assert all("layers" not in hint for hint in EXIT_HINTS.values())
