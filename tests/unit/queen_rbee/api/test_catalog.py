"""The model catalog and availability over HTTP."""

from pathlib import Path

import pytest

from llama_orch.contracts.catalog import CatalogModel, NewModel, VerificationState
from llama_orch.http.server.peers import is_local_operator
from queen_rbee.catalog.verification import VerificationOutcome
from tests.unit.queen_rbee.api_client import FULL, ApiClient, api_client
from tests.unit.queen_rbee.catalog.test_availability import pool

MODELS = "/v2/catalog/models"
TINY = {"id": "tiny", "model_ref": "hf:org/repo/tiny.gguf"}
DIGEST = "sha256:" + "a" * 64


def serve(served: ApiClient, pool_id: str, *models: str, ready: bool = True) -> None:
    """Register a pool that serves `models`."""
    served.parts.registry.update(pool_id, 0, [pool(pool_id, *models, ready=ready)])


async def test_model_is_added_listed_and_deleted(tmp_path: Path):
    served = api_client(tmp_path)
    body = {**TINY, "cost_per_1k_tokens": 0.5, "metadata": {"licence": "MIT"}}
    added = await served.ask("POST", MODELS, body)
    assert added.status == 201
    assert {name: added.json[name] for name in body} == body
    assert (added.json["state"], added.json["verification"]["state"]) == ("Active", "unverified")
    assert (await served.ask("GET", f"{MODELS}/tiny")).json == added.json
    assert (await served.ask("GET", MODELS)).json == {"models": [added.json], "count": 1}
    deleted = await served.ask("DELETE", f"{MODELS}/tiny")
    assert (deleted.status, deleted.json) == (204, None)
    assert (await served.ask("GET", MODELS)).json == {"models": [], "count": 0}


async def test_same_model_again_is_200_and_other_of_same_id_409(tmp_path: Path):
    served = api_client(tmp_path)
    first = await served.ask("POST", MODELS, TINY)
    again = await served.ask("POST", MODELS, TINY)
    assert (again.status, again.json) == (200, first.json)
    other = await served.ask("POST", MODELS, {**TINY, "model_ref": "other"})
    assert (other.status, other.json["code"]) == (409, "INVALID_PARAMS")
    assert other.json["fields"][0]["field"] == "id"


async def test_given_digest_is_verified(tmp_path: Path):
    answer = await api_client(tmp_path).ask("POST", MODELS, {**TINY, "digest": DIGEST})
    assert (answer.status, answer.json["verification"]["state"]) == (201, "pending")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["id", "model_ref"]),
        ({**TINY, "digest": "sha256:abc"}, ["digest"]),
        ({**TINY, "digest": DIGEST.upper()}, ["digest"]),
        ({**TINY, "id": "../x"}, ["id"]),
        ({**TINY, "id": "tiny\n"}, ["id"]),
        ({**TINY, "cost_per_1k_tokens": -1}, ["cost_per_1k_tokens"]),
        ({**TINY, "size": 1, "metadata": {"a": ""}}, ["metadata.a", "size"]),
    ],
)
async def test_wrong_fields_are_named(body: object, fields: list[str], tmp_path: Path):
    assert (await api_client(tmp_path).ask("POST", MODELS, body)).fields == fields


async def test_model_is_retired_and_reactivated(tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("POST", MODELS, TINY)
    for state in ("Retired", "Active"):
        answer = await served.ask("POST", f"{MODELS}/tiny/state", {"state": state})
        assert (answer.status, answer.json["state"]) == (202, state)
        assert (await served.ask("GET", f"{MODELS}/tiny")).json["state"] == state
    assert (await served.ask("POST", f"{MODELS}/tiny/state", {"state": "retired"})).fields == ["state"]


async def test_verification_is_accepted(tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("POST", MODELS, TINY)
    answer = await served.ask("POST", f"{MODELS}/tiny/verify")
    assert (answer.status, answer.json["verification"]["state"]) == (202, "pending")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/verify", None),
        ("POST", "/state", {"state": "Retired"}),
    ],
)
async def test_unknown_model_is_404(method: str, path: str, body: object, tmp_path: Path):
    answer = await api_client(tmp_path).ask(method, f"{MODELS}/none{path}", body)
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    assert answer.json["message"] == "there is no model none"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", MODELS, {**TINY, "id": "other"}),
        ("DELETE", f"{MODELS}/tiny", None),
        ("POST", f"{MODELS}/tiny/verify", None),
        ("POST", f"{MODELS}/tiny/state", {"state": "Retired"}),
    ],
)
async def test_store_failure_is_503_without_change(method: str, path: str, body: object, tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("POST", MODELS, TINY)
    before = (await served.ask("GET", MODELS)).json
    served.store.failure = FULL
    answer = await served.ask(method, path, body)
    assert (answer.status, answer.json["retriable"], answer.json["hint"]) == (503, True, "Make room.")
    assert (await served.ask("GET", MODELS)).json == before


async def test_catalog_survives_restart(tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("POST", MODELS, {**TINY, "metadata": {"a": "b"}})
    await served.ask("POST", f"{MODELS}/tiny/state", {"state": "Retired"})
    before = (await served.ask("GET", MODELS)).json
    after = api_client(tmp_path, served.store.after_restart())
    await after.parts.catalog.load()
    assert (await after.ask("GET", MODELS)).json == before


async def test_availability_of_local_machine(tmp_path: Path):
    served = api_client(tmp_path)
    serve(served, "b", "x", "y")
    serve(served, "a", "y")
    serve(served, "c", "z", ready=False)
    answer = await served.ask("GET", "/v2/catalog/availability")
    address = str(served.parts.settings.address)
    node = {"node_id": "local", "address": address, "online": True, "models": ["x", "y"], "pools": ["a", "b", "c"]}
    assert (answer.status, answer.json) == (
        200,
        {"nodes": {"local": node}, "total_models": 2, "replicated_models": 0, "single_node_models": 2},
    )


async def test_response_has_fields_of_the_contract(tmp_path: Path):
    answer = await api_client(tmp_path).ask("POST", MODELS, TINY)
    assert set(answer.json) == set(CatalogModel.model_fields)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("client", "headers", "shown"),
    [
        (("127.0.0.1", 1), {}, True),
        (("::1", 1), {}, True),
        (None, {}, True),
        (("192.0.2.1", 1), {}, False),
        (("127.0.0.1", 1), {"X-Forwarded-For": "192.0.2.1"}, False),
        (None, {"Forwarded": "for=192.0.2.1"}, False),
    ],
)
def test_local_operator_is_recognized(client, headers, shown):
    lower = {name.lower(): value for name, value in headers.items()}
    assert is_local_operator(client, lower) is shown


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "192.0.2.1"}])
async def test_found_digest_is_shown_to_local_operators_only(tmp_path: Path, headers):
    served = api_client(tmp_path)
    catalog = served.parts.catalog
    await catalog.add(NewModel(id="tiny", model_ref="hf:org/repo/tiny.gguf", digest=DIGEST))
    other = "sha256:" + "b" * 64
    mismatch = VerificationOutcome(
        VerificationState.MISMATCH, "file", "the digest of the file differs from the catalog", other
    )
    model = catalog.model("tiny")
    assert model is not None
    catalog._record(model, mismatch)
    for path in (MODELS, f"{MODELS}/tiny"):
        response = await served.app.test_client().get(path, headers=headers, scope_base={"client": ("127.0.0.1", 1)})
        assert (other in await response.get_data(as_text=True)) is (not headers)
