"""Schemas, parameters and headers that several route declarations share."""

from collections.abc import Mapping

from llama_orch.contracts.base import NODE_ID_PATTERN, POOL_ID_PATTERN
from llama_orch.contracts.catalog import MODEL_ID_PATTERN
from llama_orch.http.server.routes import Parameter, Schema
from queen_rbee.api.paging import LARGEST_PAGE, PAGE

EVENT_STREAM = "text/event-stream"
TEXT: Schema = {"type": "string"}
UUID: Schema = {"type": "string", "format": "uuid"}
ARTIFACT_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
EXAMPLE_ARTIFACT_ID = "0712300a3b25eeee34eddebc1b4d779f1879608cecd3321604bdeb506ababc63"
"""The id of the artifact that add_artifact has as its example."""
EXAMPLE_SESSION_ID = "4f0c6f6e-7d8b-4a52-9a53-0d1f3c1b7a10"

PATH_VARIABLES: Mapping[str, tuple[str, Schema]] = {
    "task_id": ("The `task_id` of a task.", UUID),
    "session_id": ("The `session_id` of a session. Clients choose it.", UUID),
    "model_id": ("The `id` of a model in the catalog.", {**TEXT, "pattern": MODEL_ID_PATTERN}),
    "artifact_id": ("The `id` of an artifact.", {**ARTIFACT_ID, "examples": [EXAMPLE_ARTIFACT_ID]}),
    "model": (
        "A name from GET /v1/models. It may contain slashes.",
        {**TEXT, "minLength": 1, "examples": ["default"]},
    ),
    "node_id": ("The `node_id` of a node.", {**TEXT, "pattern": NODE_ID_PATTERN, "examples": ["gpu-node-1"]}),
    "gpu": ("The index or the UUID of a GPU.", {**TEXT, "minLength": 1, "maxLength": 128, "examples": ["0"]}),
    "response_id": ("The `id` of a stored response.", {**TEXT, "minLength": 1}),
    "page": ("The file name of a page of the manual.", {**TEXT, "minLength": 1, "examples": ["orchctl.1.html"]}),
    "file": ("The path of a file of the page.", {**TEXT, "minLength": 1, "examples": ["main.js"]}),
    "file_id": ("The `id` of a file.", {**TEXT, "minLength": 1, "maxLength": 128}),
    "batch_id": ("The `id` of a batch.", {**TEXT, "minLength": 1, "maxLength": 128}),
    "operation_id": ("The `operation_id` of an operation.", UUID),
    "pool_id": ("The `pool_id` of a pool.", {**TEXT, "pattern": POOL_ID_PATTERN, "examples": ["default"]}),
}
"""Description and schema of path variables. A variable that is not listed is described as plain text."""

LIMIT = Parameter(
    "limit",
    "The largest number of entries to return.",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE},
)


def before(schema: Schema, example: str | None = None) -> Parameter:
    """Declare `?before=`: the id of the last entry of the previous page."""
    return Parameter("before", "The `next` of the previous page.", schema, example=example)


BUDGET_HEADERS = ("X-Budget-Tokens-Remaining", "X-Budget-Time-Ms-Remaining", "X-Budget-Cost-Remaining")
PLACE_HEADERS = ("X-Llama-Orch-Pool", "X-Llama-Orch-Overhead-Ms")
PREFER = Parameter(
    "Prefer",
    "RFC 7240. `wait=N`: the seconds that the task may wait until it starts; `wait=0`: the task is refused unless its "
    "model is loaded now. Else the answer is 503 with Retry-After, and the model is loaded for the retry.",
    TEXT,
    "header",
    "wait=30",
)
