"""The size of a file on a server, asked for without downloading it."""

from urllib.parse import urlsplit

from llama_orch.addresses import is_loopback

LIMIT_S = 5.0


async def size_of(url: str) -> int | None:
    """Return the size in bytes that the server tells in answer to HEAD, or None. Takes at most LIMIT_S a step."""
    import httpx2

    proxies = not is_loopback(urlsplit(url).hostname or "")
    try:
        async with httpx2.AsyncClient(follow_redirects=True, timeout=LIMIT_S, trust_env=proxies) as client:
            answer = await client.head(url, headers={"accept-encoding": "identity"})
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, ImportError):
        return None
    length = answer.headers.get("content-length", "")
    return int(length) if answer.status_code == 200 and length.isdigit() else None
