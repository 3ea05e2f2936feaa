"""A model whose weights exceed the memory of all its GPUs is refused; anything less certain is left to the engine."""

from dataclasses import replace
from typing import Any

import pytest

from engine_provisioner.failures import Retry
from engine_provisioner.gguf.header import Attention, GgufHeader, Weights
from engine_provisioner.memory.fit import too_large
from tests.unit.engine_provisioner.pools import MODEL, pool

GIB = 1 << 30
HEADER = GgufHeader(
    *(3, "llama", None, "Q4_K_M", 8192, 2, 4096, 14336, 128_000, 0, 0, 0),
    *(Attention((32, 32), (8, 8), 128, 128), None, 0, True, 10, Weights((20 * GIB, 20 * GIB), GIB), 1 << 20),
    *(41 * GIB, 0, 1, 0),
)
LARGE = replace(MODEL, size_bytes=41 * GIB)


def test_weights_above_all_gpus_are_refused_with_figures() -> None:
    failure = too_large(pool(ctx=512, slots=2), LARGE, HEADER, (0, 1), 39 * GIB)
    assert failure is not None
    assert "take 40.0 GiB, more than the 39.0 GiB of GPU 0,1 together" in failure.message
    assert "by estimate (ctx 512, slots 2)" in failure.message
    assert "smaller quantization" in failure.hint
    assert failure.retry is Retry.NEVER


def test_token_embeddings_need_no_gpu() -> None:
    assert too_large(pool(), LARGE, HEADER, (0,), 40 * GIB) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"flags": ["--n-gpu-layers", "1"]},
        {"flags": ["-ot=exps=CPU"]},
        {"flags": ["--cpu-moe"]},
        {"env": {"GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1"}},
        {"env": {"LLAMA_ARG_N_GPU_LAYERS": "1"}},
    ],
)
def test_pool_that_places_weights_itself_is_tried(keys: dict[str, Any]) -> None:
    assert too_large(pool(**keys), LARGE, HEADER, (0,), GIB) is None


def test_what_is_not_known_is_tried() -> None:
    assert too_large(pool(), LARGE, None, (0,), GIB) is None
    assert too_large(pool(), LARGE, HEADER, (0,), None) is None
    assert too_large(pool(), LARGE, HEADER, (), GIB) is None
