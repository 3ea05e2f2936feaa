"""The JSON schema agrees with the parser."""

import json

from engine_provisioner.spec.pools_schema import pools_schema


def test_model_is_text_or_a_table() -> None:
    pool = json.loads(pools_schema())["$defs"]["Pool"]["properties"]
    kinds = {choice.get("type") or choice.get("$ref") for choice in pool["model"]["anyOf"]}
    assert kinds == {"string", "#/$defs/Model", "null"}


def test_schema_rejects_unknown_keys() -> None:
    tables = json.loads(pools_schema())["$defs"]
    assert {name for name, table in tables.items() if table.get("type") == "object"} >= {"Pool", "Model", "Timeouts"}
    assert all(table["additionalProperties"] is False for table in tables.values() if table.get("type") == "object")
