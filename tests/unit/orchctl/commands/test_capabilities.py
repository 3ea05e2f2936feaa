"""orchctl capabilities."""

import json

from llama_orch.contracts.meta import Capabilities
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import reply, serve

OFFER = {
    "ctx_max": 4096,
    "max_tokens": 4096,
    "slots": 4,
    "workloads": ["completion", "embedding"],
    "endpoints": ["chat"],
    "features": ["cancel", "seed"],
}
POOL = {**OFFER, "pool_id": "default", "engine": "llamacpp", "engine_version": "b1", "ready": True, "models": ["tiny"]}
KNOWN = {**OFFER, "engine": "llamacpp", "versions": ["b1"], "pools": ["default"]}
UNUSED = {**OFFER, "engine": "tgi", "versions": [], "pools": [], "slots": 0, "ctx_max": None, "max_tokens": None}
DOCUMENT = {"api_version": "2", "version": "0.1.0", "engines": [KNOWN, UNUSED], "pools": [POOL], "newer": 1}
ENGINES = """\
ENGINE    POOLS    SLOTS  CONTEXT  MAX TOKENS  WORKLOADS              FEATURES
llamacpp  default  4      4096     4096        completion, embedding  cancel, seed
tgi       -        0      -        -           completion, embedding  cancel, seed
"""
POOLS = """\
POOL     READY  ENGINE       SLOTS  CONTEXT  MAX TOKENS  WORKLOADS              FEATURES
default  yes    llamacpp b1  4      4096     4096        completion, embedding  cancel, seed
"""
PATH = "GET /v2/meta/capabilities"


def test_table_of_pools_then_engines() -> None:
    Capabilities.model_validate(DOCUMENT)
    with serve({PATH: [reply(200, DOCUMENT)]}) as queen:
        result = run("capabilities", "--url", queen.url)
        as_json = run("capabilities", "--json", "--url", queen.url)
    assert (result.status, result.out, result.err) == (0, f"{POOLS}\n{ENGINES}", "")
    assert json.loads(as_json.out) == DOCUMENT


def test_without_pools_only_engines_are_shown() -> None:
    with serve({PATH: [reply(200, {**DOCUMENT, "pools": []})]}) as queen:
        assert run("capabilities", "--url", queen.url).out == ENGINES
