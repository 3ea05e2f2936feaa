"""The JSON Schema of the pools file. `python -m engine_provisioner.spec.pools_schema` prints it."""

import json
import sys

from engine_provisioner.spec.pool_spec import PoolsFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def pools_schema() -> str:
    """Return the schema as JSON text that ends with a newline."""
    return (
        json.dumps({"$schema": DIALECT, "title": "llama-orch-pools", **PoolsFile.model_json_schema()}, indent=2) + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(pools_schema())
