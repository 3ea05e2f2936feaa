"""The schema that ships with the package says what the pools file may hold."""

import json

from engine_provisioner.spec.pools_schema import pools_schema


def test_a_model_may_be_text_or_a_table() -> None:
    pool = json.loads(pools_schema())["$defs"]["Pool"]["properties"]
    kinds = {choice.get("type") or choice.get("$ref") for choice in pool["model"]["anyOf"]}
    assert kinds == {"string", "#/$defs/Model", "null"}


def test_unknown_keys_are_refused_by_the_schema_too() -> None:
    tables = json.loads(pools_schema())["$defs"]
    assert {name for name, table in tables.items() if table.get("type") == "object"} >= {"Pool", "Model", "Timeouts"}
    assert all(table["additionalProperties"] is False for table in tables.values() if table.get("type") == "object")
