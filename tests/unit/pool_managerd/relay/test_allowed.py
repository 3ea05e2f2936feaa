"""The relay with its real allow-list: an engine gets only listed requests of its workloads."""

import json

import pytest

from llama_orch.engines.relay_paths import relay_purpose
from tests.unit.pool_managerd.relay_site import relay_site
from tests.unit.pool_managerd.values import READY, found

TRICKS = [
    "slots/0?action=erase",
    "lora-adapters",
    "props",
    "models/load",
    "completion?action=erase",
    "completion/",
    "Completion",
    "completion%2F",
    "v1/chat/completions/%2e%2e/%2e%2e/%2e%2e/slots/0?action=erase",
    "completion/../slots/0",
    "completion;/../slots/0",
    "completion%00",
]


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_unlisted_path_reaches_no_engine(path: str, method: str) -> None:
    async with relay_site(allows=relay_purpose) as site:
        async with site.ask(path, method) as answer:
            body = json.loads(await answer.read())
        assert (answer.status, body["code"]) in ((404, "NOT_FOUND"), (400, "INVALID_PARAMS"))
        assert site.engine.asked == []


async def test_refusal_names_path_and_engine_kind() -> None:
    async with relay_site(allows=relay_purpose) as site, site.ask("lora-adapters") as answer:
        body = json.loads(await answer.read())
    assert (answer.status, answer.headers["x-llama-orch-relay"]) == (404, "refused")
    assert (body["code"], body["reason"]) == ("NOT_FOUND", "no_such_path")
    assert body["message"] == "POST /lora-adapters is not relayed to engines of kind llamacpp"


@pytest.mark.parametrize("path", ["/completion", "./completion", "%63ompletion", "slots/../completion"])
async def test_listed_path_reaches_the_engine_in_one_spelling(path: str) -> None:
    async with relay_site(allows=relay_purpose) as site:
        async with site.ask(path) as answer:
            assert answer.status == 418
        assert [request.split(b" ")[1] for request in site.engine.asked] == [b"/completion"]


async def test_requests_of_the_queen_are_passed_on() -> None:
    async with relay_site(allows=relay_purpose) as site:
        async with site.ask("v1/chat/completions") as answer:
            assert answer.status == 418  # the fake engine's own
        assert site.engine.asked[0].startswith(b"POST /v1/chat/completions ")


async def test_engine_gets_only_its_workloads() -> None:
    async with relay_site(allows=relay_purpose) as site:
        site.registry.take(found(replica_id="r0", port=site.engine.port, workloads=["embedding"]), READY)
        async with site.ask("v1/chat/completions") as answer:
            body = json.loads(await answer.read())
            assert (answer.status, body["message"]) == (400, "no engine of the pool was started for completion tasks")
        assert site.engine.asked == []
        async with site.ask("v1/embeddings") as answer:
            assert answer.status == 418


async def test_engine_with_the_workload_is_chosen() -> None:
    async with relay_site(allows=relay_purpose) as site:
        site.registry.take(found(replica_id="a", port=1, workloads=["embedding"]), READY)
        for _turn in range(4):
            async with site.ask("completion") as answer:
                assert answer.status == 418
