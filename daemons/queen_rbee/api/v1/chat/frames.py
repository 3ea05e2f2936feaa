"""Server-sent events whose name is the `type` of their data."""

import json

from queen_rbee.api.v1.chat.turns import Json


def event_frame(data: Json) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {data['type']}\ndata: {text}\n\n".encode("utf-8", "replace")
