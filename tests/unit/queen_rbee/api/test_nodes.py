"""Registrations of nodes that are refused."""

from pathlib import Path
from typing import Any

import pytest

from queen_rbee.api.openapi.document import openapi
from queen_rbee.api.routes import ROUTES
from tests.unit.queen_rbee.api_client import api_client

REGISTRATION = {
    "machine_id": "0" * 32,
    "address": "http://192.0.2.1:9200",
    "version": "0.1.0",
}


@pytest.mark.parametrize("node_id", ["register", "", "a b", "-a", "a/b", "a" * 129])
async def test_invalid_node_id_is_refused(tmp_path: Path, node_id: str) -> None:
    refused = await api_client(tmp_path).ask("POST", "/v2/nodes/register", {"node_id": node_id, **REGISTRATION})
    assert refused.fields == ["node_id"]


async def test_refusal_of_reserved_id_says_why(tmp_path: Path) -> None:
    refused = await api_client(tmp_path).ask("POST", "/v2/nodes/register", {"node_id": "register", **REGISTRATION})
    assert refused.json["code"] == "INVALID_PARAMS"
    assert refused.json["message"] == "node_id: is reserved for the path /v2/nodes/register"


@pytest.mark.parametrize("node_id", ["registers", "Register", "a" * 128])
async def test_similar_node_id_is_accepted(tmp_path: Path, node_id: str) -> None:
    answer = await api_client(tmp_path).ask("POST", "/v2/nodes/register", {"node_id": node_id, **REGISTRATION})
    assert answer.status == 409, "the body is valid, but HOME_PROFILE has no nodes"


def test_description_excludes_the_reserved_id() -> None:
    described: Any = openapi(ROUTES)
    registration = described["components"]["schemas"]["NodeRegistration"]["properties"]["node_id"]
    assert registration["not"] == {"const": "register"}
