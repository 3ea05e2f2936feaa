"""Rewriting of engines' answers for /v1 clients: the model gets the name that the client used.

Engines report the model under the name they were started with; llama-server without an alias reports a path. Replacing
text is safe: quotes within a JSON string are escaped, so that the pattern can only match a key.
"""

import json
import re
from collections.abc import Mapping

from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import Passage

MODEL = re.compile(r'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


class ClientView:
    """Rewrites the JSON of one answer."""

    def __init__(self, passage: Passage) -> None:
        asked = passage.body.get("model")
        self._model = _field(asked) if isinstance(asked, str) and asked else None
        self._engines = ""
        """The engine's field in the last chunk: nearly always that of the next one, which need not be searched then."""
        self._drops_alternatives = passage.endpoint == "chat" and wants_no_alternatives(passage.body)

    def __call__(self, raw: str) -> str:
        """Return `raw`, a chunk or a whole answer, as the client sees it."""
        if self._drops_alternatives and "top_logprobs" in raw:
            raw = _without_alternatives(raw)
        if not self._engines or self._engines not in raw:
            found = MODEL.search(raw)
            if found is None:
                return raw
            self._engines = found[0]
            self._clients = self._model or _field(public_name(json.loads(found[1])))
        return raw if self._engines == self._clients else raw.replace(self._engines, self._clients, 1)


def wants_no_alternatives(body: Mapping[str, object]) -> bool:
    """Whether a chat asks for log probabilities of the chosen tokens only, by logprobs without top_logprobs."""
    return body.get("logprobs") is True and not body.get("top_logprobs")


def _field(name: str) -> str:
    return f'"model":{json.dumps(name, ensure_ascii=False)}'


def _without_alternatives(raw: str) -> str:
    document = json.loads(raw)
    for choice in document.get("choices") or ():
        for token in ((choice.get("logprobs") or {}).get("content")) or ():
            token["top_logprobs"] = []
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
