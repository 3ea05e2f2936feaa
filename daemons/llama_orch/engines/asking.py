"""Ask a llama-server which workloads it was started for.

Empty bodies are posted: the server checks its own mode before the body, so no slot is taken and nothing is computed.
"""

import re

import trio

from llama_orch.contracts.engines import Workload
from llama_orch.http.client.client import UpstreamError, request

SIZE_LIMIT = 64 << 10
NOT_STARTED_FOR = 501
WANTS_INPUT = re.compile(rb"(input|content|query)\W+ must be provided|Pooling type")
"""How an endpoint that is on complains of an empty body (build 11669)."""


async def llama_server_workloads(url: str, limit_s: float) -> list[Workload] | None:
    """The workloads of the llama-server at `url`, or None where its answers are not those of a llama-server.

    Whether an embeddings server can chat as well cannot be asked without risking its life: it counts as not.
    """
    reranks = await _is_on(f"{url}/v1/rerank", limit_s)
    embeds = await _is_on(f"{url}/v1/embeddings", limit_s)
    if reranks is None or embeds is None:
        return None
    if reranks:
        return ["rerank"]
    return ["embedding"] if embeds else ["completion"]


async def _is_on(url: str, limit_s: float) -> bool | None:
    headers = {"content-type": "application/json"}
    try:
        with trio.fail_after(limit_s):
            async with request("POST", url, headers=headers, body=b"{}", connect_s=limit_s) as response:
                body = await response.read(SIZE_LIMIT)
    except (UpstreamError, trio.TooSlowError):
        return None
    if response.status == NOT_STARTED_FOR:
        return False
    return True if response.status == 400 and WANTS_INPUT.search(body) else None
