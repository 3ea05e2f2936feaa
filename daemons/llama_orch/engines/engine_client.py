"""HTTP requests to one engine, each bounded in time and size. Answers of any shape are tolerated."""

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import trio
from pydantic import TypeAdapter, ValidationError

from llama_orch.http.client.client import UpstreamError, fetch, request

Shape = TypeVar("Shape")


@dataclass(frozen=True)
class EngineClient:
    """Asks the engine at `url`; each request takes at most `limit_s` seconds and returns at most `size` bytes."""

    url: str
    limit_s: float
    size: int = 1 << 20

    async def get(self, path: str) -> bytes:
        """Return the body of an answer with status 200, otherwise b""."""
        try:
            status, body = await fetch(self.url + path, limit_s=self.limit_s, size=self.size)
        except UpstreamError:
            return b""
        return body if status == 200 else b""

    async def get_object(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`, or an empty one."""
        try:
            value = json.loads(await self.get(path))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    async def post(self, path: str) -> tuple[int, bytes] | None:
        """POST an empty JSON object: status and body, or None without an answer."""
        headers = {"content-type": "application/json"}
        asking = request(
            "POST", self.url + path, headers=headers, body=b"{}", connect_s=self.limit_s, head_s=self.limit_s
        )
        try:
            with trio.fail_after(self.limit_s):
                async with asking as response:
                    return response.status, await response.read(self.size, self.limit_s)
        except (UpstreamError, trio.TooSlowError):
            return None


def parse(shape: TypeAdapter[Shape], body: bytes) -> Shape | None:
    """Return `body` as `shape`, or None if it has another shape."""
    try:
        return shape.validate_json(body)
    except ValidationError:
        return None


def text(value: object) -> str | None:
    """Return `value` if it is a string that is not empty, cut to 256 characters."""
    return value[:256] if isinstance(value, str) and value else None


def positive(value: object) -> int | None:
    """Return `value` if it is a positive integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
