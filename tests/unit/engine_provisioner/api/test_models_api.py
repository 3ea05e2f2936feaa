"""The API of models and operations."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine_provisioner.api.routes import ROUTES
from engine_provisioner.operations import ACTIVE_LIMIT, Operation
from tests.unit.engine_provisioner.api.rig import Rig, rig
from tests.unit.engine_provisioner.cache.disk import download, url
from tests.unit.engine_provisioner.gguf.gguf_files import LLAMA, FakeTensor, gguf_bytes
from tests.unit.engine_provisioner.pools import pool

AUTOMATIC_METHODS = {"HEAD", "OPTIONS"}
MODEL = gguf_bytes(LLAMA, [FakeTensor("blk.0.a", (64,))], 256)


async def call(api: Rig, method: str, path: str, body: object = None, **query: str) -> tuple[int, Any]:
    client = api.app.test_client()
    response = await client.open(path, method=method, json=body, query_string=query)
    return response.status_code, await response.get_json() if response.content_length else None


async def models(api: Rig) -> list[dict[str, Any]]:
    status, body = await call(api, "GET", "/v2/models")
    assert status == 200
    assert body["count"] == len(body["models"])
    found: list[dict[str, Any]] = body["models"]
    return found


async def operation(api: Rig, operation_id: str) -> dict[str, Any]:
    await trio.testing.wait_all_tasks_blocked(0.01)
    status, body = await call(api, "GET", f"/v2/operations/{operation_id}")
    assert status == 200
    assert isinstance(body, dict)
    return body


async def ended(api: Rig, operation_id: str) -> dict[str, Any]:
    with trio.fail_after(10):
        while True:
            body = await operation(api, operation_id)
            if body["state"] not in ("queued", "running"):
                return body


async def test_every_declared_route_is_served(tmp_path: Path) -> None:
    async with rig(tmp_path) as api:
        served = {
            (method, rule.rule.replace("<", "{").replace(">", "}"))
            for rule in api.app.url_map.iter_rules()
            for method in (rule.methods or set()) - AUTOMATIC_METHODS
        }
        assert served == {(route.method, route.path) for route in ROUTES}


async def test_list_has_what_the_file_says_and_who_uses_it(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    record.files[0].path.write_bytes(MODEL)
    async with rig(tmp_path, pool(model=url("a")), limit_bytes=10_000) as api:
        await api.cache.record(record)
        (found,) = await models(api)
        assert (found["ref"], found["pools"], found["pinned"]) == (url("a"), ["default"], False)
        assert (found["quantization"], found["architecture"], found["context"]) == ("Q4_K_M", "llama", 2048)
        assert (found["recorded"], found["owned"], found["problem"]) == (True, True, None)
        _status, body = await call(api, "GET", "/v2/models")
        assert (body["total_bytes"], body["limit_bytes"]) == (len(MODEL), 10_000)


async def test_damaged_and_truncated_files_are_listed_with_problem(tmp_path: Path) -> None:
    for name, content in (("a", b"<html>"), ("b", MODEL[:-50])):
        download(tmp_path, name).files[0].path.write_bytes(content)
    async with rig(tmp_path) as api:
        problems = {Path(found["files"][0]["path"]).stem: found["problem"] for found in await models(api)}
        assert problems == {
            "a": "it is not a GGUF file",
            "b": "it is truncated: 50 bytes are missing at its end",
        }


async def test_changed_file_is_read_again(tmp_path: Path) -> None:
    path = download(tmp_path, "a").files[0].path
    async with rig(tmp_path) as api:
        assert (await models(api))[0]["architecture"] is None
        path.write_bytes(MODEL)
        assert (await models(api))[0]["architecture"] == "llama"


async def test_pull_shows_progress_and_ends_as_done(tmp_path: Path) -> None:
    async with rig(tmp_path, content=MODEL) as api:
        status, accepted = await call(api, "POST", "/v2/models/pull", {"ref": url("m")})
        assert status == 202
        running = await operation(api, accepted["operation_id"])
        assert (running["kind"], running["subject"], running["state"]) == ("pull", url("m"), "running")
        assert (running["progress"]["bytes_done"], running["progress"]["bytes_total"]) == (len(MODEL) // 2, len(MODEL))
        _status, joined = await call(api, "POST", "/v2/models/pull", {"ref": url("m")})
        assert joined == accepted
        api.source.go_on.set()
        done = await ended(api, accepted["operation_id"])
        assert (done["state"], done["error"]) == ("done", None)
        assert [found["ref"] for found in await models(api)] == [url("m")]


async def test_pull_uses_checksum_of_pool_with_same_model(tmp_path: Path) -> None:
    model = {"ref": url("m"), "checksum": f"sha256:{'0' * 64}"}
    async with rig(tmp_path, pool(model=model), content=MODEL) as api:
        await call(api, "POST", "/v2/models/pull", {"ref": url("m")})
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [asked.checksum for asked in api.source.asked] == [model["checksum"]]


async def test_cancelled_pull_stops(tmp_path: Path) -> None:
    async with rig(tmp_path, content=MODEL) as api:
        _status, accepted = await call(api, "POST", "/v2/models/pull", {"ref": url("m")})
        path = f"/v2/operations/{accepted['operation_id']}"
        assert (await call(api, "DELETE", path))[0] == 202
        assert (await ended(api, accepted["operation_id"]))["state"] == "cancelled"
        assert (await call(api, "DELETE", path))[0] == 202


async def test_pull_above_limit_fails_with_advice(tmp_path: Path) -> None:
    async with rig(tmp_path, content=MODEL, limit_bytes=10) as api:
        _status, accepted = await call(api, "POST", "/v2/models/pull", {"ref": url("m")})
        failed = await ended(api, accepted["operation_id"])
        assert failed["state"] == "failed"
        assert "ENGINE_PROVISIONER_CACHE_LIMIT" in failed["error"]
        assert "orchctl models --disk" in failed["hint"]


@pytest.mark.parametrize(
    "ref", ["", "model.gguf", "http://example.org/m.gguf", "file:m.gguf", "https://a\nb", "x" * 3000]
)
async def test_invalid_reference_is_refused(tmp_path: Path, ref: str) -> None:
    async with rig(tmp_path) as api:
        status, body = await call(api, "POST", "/v2/models/pull", {"ref": ref})
        assert (status, body["code"]) == (400, "INVALID_PARAMS")
        assert "ref:" in body["message"]


async def test_secrets_of_pulled_url_are_not_shown(tmp_path: Path) -> None:
    async with rig(tmp_path, content=MODEL) as api:
        ref = "https://me:hunter2@example.org/m.gguf?token=hunter3"
        _status, accepted = await call(api, "POST", "/v2/models/pull", {"ref": ref})
        assert "hunter" not in str(await operation(api, accepted["operation_id"]))


async def test_number_of_pulls_is_bounded(tmp_path: Path) -> None:
    async def forever(_operation: Operation) -> None:
        await trio.sleep_forever()

    async with rig(tmp_path) as api:
        for number in range(ACTIVE_LIMIT):
            api.operations.start("pull", str(number), forever)
        status, body = await call(api, "POST", "/v2/models/pull", {"ref": url("m")})
        assert (status, body["retriable"]) == (429, True)
        _status, listed = await call(api, "GET", "/v2/operations")
        assert listed["count"] == ACTIVE_LIMIT


async def test_model_is_pinned_and_unpinned(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    async with rig(tmp_path) as api:
        await api.cache.record(record)
        for pinned in (True, False):
            assert (await call(api, "POST", "/v2/models/pin", {"ref": url("a"), "pinned": pinned}))[0] == 204
            assert (await models(api))[0]["pinned"] is pinned
        assert (await call(api, "POST", "/v2/models/pin", {"ref": url("b")}))[0] == 404


async def test_model_is_removed(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    async with rig(tmp_path) as api:
        await api.cache.record(record)
        assert await call(api, "DELETE", "/v2/models", ref=url("a")) == (200, {"freed_bytes": 1000})
        assert await models(api) == []
        status, body = await call(api, "DELETE", "/v2/models", ref=url("a"))
        assert (status, body["message"]) == (404, f"there is no model on disk {url('a')}")


async def test_model_of_pool_is_removed_only_by_force(tmp_path: Path) -> None:
    record = download(tmp_path, "a")
    async with rig(tmp_path, pool(model=url("a"))) as api:
        await api.cache.record(record)
        status, body = await call(api, "DELETE", "/v2/models", ref=url("a"))
        assert (status, body["message"]) == (409, f"the model {url('a')} is used by pool default")
        assert (await call(api, "DELETE", "/v2/models", ref=url("a"), force="true"))[0] == 200


@pytest.mark.parametrize("query", [{}, {"ref": ""}, {"ref": "x" * 3000}, {"ref": "a", "force": "yes"}])
async def test_invalid_removal_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    async with rig(tmp_path) as api:
        assert (await call(api, "DELETE", "/v2/models", **query))[0] == 400


async def test_unknown_operation_is_not_found(tmp_path: Path) -> None:
    async with rig(tmp_path) as api:
        for method in ("GET", "DELETE"):
            assert (await call(api, method, "/v2/operations/none"))[0] == 404
