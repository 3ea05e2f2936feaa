"""What a /v1 client sees in place of an engine's own words: the model by the name that the client used.

Engines name the model as they were started: llama-server by a path where it was given no alias. Replacing text is safe:
within a JSON string each quote is escaped, so the pattern can only match a key.
"""

import json
import re
from collections.abc import Mapping

from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import Passage

MODEL = re.compile(r'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


class Shown:
    """Rewrites the JSON of one answer."""

    def __init__(self, passage: Passage) -> None:
        asked = passage.body.get("model")
        self._model = _field(asked) if isinstance(asked, str) and asked else None
        self._bare = passage.endpoint == "chat" and wants_no_alternatives(passage.body)

    def __call__(self, raw: str) -> str:
        """`raw`, a chunk or a whole answer, as the client sees it."""
        if self._bare and "top_logprobs" in raw:
            raw = _without_alternatives(raw)
        return MODEL.sub(self._named, raw, count=1)

    def _named(self, found: re.Match[str]) -> str:
        return self._model or _field(public_name(json.loads(found[1])))


def wants_no_alternatives(body: Mapping[str, object]) -> bool:
    """Whether a chat wants the log probabilities of its tokens alone, as OpenAI has it without top_logprobs."""
    return body.get("logprobs") is True and not body.get("top_logprobs")


def _field(name: str) -> str:
    return f'"model":{json.dumps(name, ensure_ascii=False)}'


def _without_alternatives(raw: str) -> str:
    document = json.loads(raw)
    for choice in document.get("choices") or ():
        for token in ((choice.get("logprobs") or {}).get("content")) or ():
            token["top_logprobs"] = []
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
