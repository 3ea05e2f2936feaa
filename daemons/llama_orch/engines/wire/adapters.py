"""The adapters of all engine kinds."""

from collections.abc import Mapping

from llama_orch.engines import KINDS
from llama_orch.engines.wire.adapter import EngineAdapter


def adapters() -> Mapping[str, EngineAdapter]:
    """Create the adapter of each kind, by the kind's name."""
    return {name: kind.adapter() for name, kind in KINDS.items()}
