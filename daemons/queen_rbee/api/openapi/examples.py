"""Examples of bodies, by the operations that take them: each is accepted as it stands where a pool serves it."""

from collections.abc import Mapping

from pydantic import JsonValue

Json = dict[str, JsonValue]

CHAT: Json = {"model": "default", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 40}
COMPLETION: Json = {"model": "default", "prompt": "The queen", "max_tokens": 40}
STREAMED: Json = {"stream": True}
PLAN = "0712300a3b25eeee34eddebc1b4d779f1879608cecd3321604bdeb506ababc63"
"""The id of the artifact below."""

NODE: Json = {
    "node_id": "gpu-node-1",
    "machine_id": "0123456789abcdef0123456789abcdef",
    "address": "http://127.0.0.1:9200",
    "pools": ["default"],
    "version": "0.1.0",
}

RANKING: Json = {"model": "default", "query": "Who reigns?", "documents": ["The queen", "The bees"]}
EXAMPLES: Mapping[str, Mapping[str, Json]] = {
    "submit_task": {
        "completion": {"prompt": "The queen", "max_tokens": 40},
        "embedding": {"workload": "embedding", "inputs": ["The queen", "The bees"]},
        "rerank": {"workload": "rerank", "prompt": "Who reigns?", "inputs": ["The queen", "The bees"]},
    },
    "change_session": {"limited": {"ttl_ms": 3_600_000, "max_turns": 20, "tokens_budget": 100_000}},
    "add_model": {"priced": {"id": "chat", "model_ref": "file:/srv/models/chat.gguf", "cost_per_1k_tokens": 0.02}},
    "change_model_state": {"retired": {"state": "Retired"}},
    "add_artifact": {"plan": {"kind": "plan", "tags": ["monday"], "content": {"steps": ["ask", "answer"]}}},
    "drain_pool": {"gently": {}, "within a minute": {"deadline_ms": 60_000}},
    "drain_node": {"gently": {}, "within a minute": {"deadline_ms": 60_000}},
    "register_node": {"one": NODE},
    "heartbeat": {"one": {"timestamp": "2026-01-01T00:00:00Z", "pools": []}},
    "chat": {"whole": CHAT, "streamed": {**CHAT, **STREAMED, "stream_options": {"include_usage": True}}},
    "complete": {"whole": COMPLETION, "streamed": {**COMPLETION, **STREAMED}},
    "embed": {"two": {"model": "default", "input": ["The queen", "The bees"]}},
    **{name: {"two": RANKING} for name in ("rerank", "rerank_v2", "rerank_bare")},
    "create_message": {"whole": CHAT, "streamed": {**CHAT, **STREAMED}},
    "count_tokens": {"short": {"model": "default", "messages": [{"role": "user", "content": "Who are you?"}]}},
}
