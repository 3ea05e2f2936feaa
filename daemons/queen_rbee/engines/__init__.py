"""Engine adapters: one for each kind of engine that this release speaks to."""

from collections.abc import Mapping

from queen_rbee.engines.adapter import EngineAdapter
from queen_rbee.engines.llamacpp import LlamaCpp
from queen_rbee.engines.openai_http import OpenAiHttp
from queen_rbee.engines.tgi import Tgi
from queen_rbee.engines.triton import Triton
from queen_rbee.engines.vllm import Vllm

_ALL: tuple[EngineAdapter, ...] = (LlamaCpp(), Vllm(), Tgi(), Triton(), OpenAiHttp())

ADAPTERS: Mapping[str, EngineAdapter] = {adapter.name: adapter for adapter in _ALL}
"""By the name that pools and tasks give the engine."""
