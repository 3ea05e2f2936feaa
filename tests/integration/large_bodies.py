"""Large request bodies: valid ones that must be served, and hostile ones made to block a daemon."""

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping

MIB = 1 << 20
SIZE = 3 * MIB
"""Size of most hostile bodies. Larger ones do no more harm, because they are refused while being received."""
LISTS = ("inputs", "messages", "prompt", "documents", "tools", "stop", "pools", "content")
OBJECTS = ("metadata", "capabilities")
REQUIRED_FIELDS = {"model": "default", "max_tokens": 1, "query": "q", "role": "user", "kind": "note"}
"""Required fields, so that a hostile body is not refused for a missing one."""


def repeated(item: bytes, size: int = SIZE) -> bytes:
    """Return a JSON array of about `size` bytes."""
    return b"[" + b",".join([item] * (size // (len(item) + 1))) + b"]"


def with_field(name: str, value: bytes) -> bytes:
    """Return a JSON object with the required fields and `value` as the field `name`."""
    rest = {key: field for key, field in REQUIRED_FIELDS.items() if key != name}
    return b'{"%s":%s,%s' % (name.encode(), value, json.dumps(rest).encode()[1:])


def hostile() -> Iterator[tuple[str, bytes]]:
    """Yield bodies that no daemon can serve, each with a description."""
    for name in LISTS:
        yield f"{name}: numbers", with_field(name, repeated(b"1"))
    for name in ("messages", "inputs", "pools", "content"):
        yield f"{name}: empty objects", with_field(name, repeated(b"{}"))
        yield f"{name}: empty texts", with_field(name, repeated(b'""'))
    for name in OBJECTS:
        members = b",".join(b'"%d":1' % number for number in range(SIZE // 10))
        yield f"{name}: many members", with_field(name, b"{" + members + b"}")
    yield "messages: 100,000 valid ones", with_field("messages", repeated(b'{"role":"user","content":"a"}', 3 * MIB))
    yield "content: many blocks", with_field("messages", user_message(repeated(b'{"type":"text","text":"a"}', 2 * MIB)))
    yield "content: many invalid blocks", with_field("messages", user_message(repeated(b'{"type":"text"}', 2 * MIB)))
    yield "prompt: 5,000 texts", with_field("prompt", repeated(b'"a"', 20_000))
    yield "unknown members", b"{" + b",".join(b'"k%d":1' % number for number in range(500_000)) + b"}"
    yield "a list", repeated(b"1")
    yield "deep lists", b"[" * SIZE
    yield "deep objects", b'{"content":' * (SIZE // 11)
    yield "long numbers", with_field("content", repeated(b"1" * 4_299))
    yield "one long number", with_field("content", b"1" * SIZE)
    yield "huge floats", with_field("content", repeated(b"1e999"))
    yield "escapes", with_field("prompt", b'"' + b"\\u00e9" * (5 * MIB) + b'"')
    yield "long text that ends with an emoji", with_field("prompt", b'"' + b"a" * (30 * MIB) + "😀".encode() + b'"')
    yield "quotes", b'"' * SIZE
    yield "backslashes", b'{"prompt":"' + b"\\" * SIZE
    yield "spaces", b" " * (40 * MIB)


def user_message(content: bytes) -> bytes:
    return b'[{"role":"user","content":' + content + b"}]"


def bomb() -> bytes:
    """Return 1 GiB of spaces, compressed by gzip to 1 MiB."""
    packer, piece = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16), b" " * (16 * MIB)
    return b"".join([*(packer.compress(piece) for _ in range(64)), packer.flush()])


def chunked(body: bytes, size: int = 2) -> bytes:
    """Encode `body` with Transfer-Encoding chunked, `size` bytes per chunk."""
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def photo(size: int) -> str:
    """Return `size` bytes in base64, in place of an image."""
    return base64.b64encode(bytes(range(256)) * (size // 256)).decode()


def turns(count: int) -> list[dict[str, object]]:
    return [{"role": "user" if number % 2 else "assistant", "content": f"turn {number}"} for number in range(count)]


def _chat_with_photo(size: int) -> dict[str, object]:
    url = {"url": f"data:image/jpeg;base64,{photo(size)}"}
    parts = [{"type": "text", "text": "What is this? é"}, {"type": "image_url", "image_url": url}]
    return {"messages": [{"role": "user", "content": parts}]}


def _message_with_photo(size: int) -> dict[str, object]:
    source = {"type": "base64", "media_type": "image/jpeg", "data": photo(size)}
    parts = [{"type": "text", "text": "What is this? é"}, {"type": "image", "source": source}]
    return {"max_tokens": 1, "model": "default", "messages": [{"role": "user", "content": parts}]}


def _response_with_photo(size: int) -> dict[str, object]:
    image = {"type": "input_image", "image_url": f"data:image/jpeg;base64,{photo(size)}"}
    return {"input": [{"role": "user", "content": [{"type": "input_text", "text": "What is this? é"}, image]}]}


PROMPT = "The river flows slowly, and nobody asks where it goes.\n" * 8_000
"""About 100,000 tokens."""

VALID: Mapping[str, tuple[str, Callable[[], dict[str, object]]]] = {
    "a prompt of 100,000 tokens": ("/v1/completions", lambda: {"prompt": PROMPT}),
    "a prompt of 100,000 tokens, as numbers": ("/v1/completions", lambda: {"prompt": list(range(100_000))}),
    "a task with a prompt of 100,000 tokens": ("/v2/tasks", lambda: {"prompt": PROMPT}),
    "a chat of 1,000 messages": ("/v1/chat/completions", lambda: {"messages": turns(1_000)}),
    "a chat of 10,000 messages": ("/v1/chat/completions", lambda: {"messages": turns(10_000)}),
    "a chat of 1,000 messages in Anthropic's API": (
        "/v1/messages",
        lambda: {"max_tokens": 1, "model": "default", "messages": turns(1_000)},
    ),
    "a chat of 10,000 messages in Anthropic's API": (
        "/v1/messages",
        lambda: {"max_tokens": 1, "model": "default", "messages": turns(10_000)},
    ),
    "10,000 messages of one role": (
        "/v1/messages",
        lambda: {"max_tokens": 1, "model": "default", "messages": [{"role": "user", "content": "a"}] * 10_000},
    ),
    "a response to 10,000 items": ("/v1/responses", lambda: {"input": turns(10_000)}),
    "1,000 embedding inputs": ("/v1/embeddings", lambda: {"input": [f"text {n}" for n in range(1_000)]}),
    "a photo of 22 MiB in a chat": ("/v1/chat/completions", lambda: _chat_with_photo(22 * MIB)),
    "a photo of 22 MiB in a message": ("/v1/messages", lambda: _message_with_photo(22 * MIB)),
    "a photo of 22 MiB in a response": ("/v1/responses", lambda: _response_with_photo(22 * MIB)),
}
