"""The model catalog."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound
from llama_orch.contracts.tasks import Name

MODEL_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"

ModelId = Annotated[str, StringConstraints(pattern=MODEL_ID_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ModelState(StrEnum):
    """Whether tasks may use a model."""

    ACTIVE = "Active"
    RETIRED = "Retired"


class NewModel(Inbound):
    """The body of POST /v2/catalog/models.

    `id` is the name that clients use. `model_ref` is the name under which pools serve the model: the reference in the
    pools file, or the file name. `cost_per_1k_tokens` counts towards the cost budgets of sessions.
    """

    id: ModelId
    model_ref: Name
    digest: Digest | None = None
    cost_per_1k_tokens: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    metadata: Annotated[dict[Word, Word], Field(max_length=64)] = {}


class ModelStateChange(Inbound):
    """The body of POST /v2/catalog/models/{id}/state."""

    state: ModelState


class VerificationState(StrEnum):
    """The state of the verification of a digest."""

    UNVERIFIED = "unverified"
    PENDING = "pending"
    VERIFIED = "verified"
    MISMATCH = "mismatch"
    UNAVAILABLE = "unavailable"


class Verification(Outbound):
    """The last check of a digest. `reason` is why it is not verified, `actual` the digest that was found.

    While another check is pending, all fields except `state` describe the previous one.
    """

    state: VerificationState = VerificationState.UNVERIFIED
    checked_at: datetime | None = None
    reason: str | None = None
    actual: str | None = None


class CatalogModel(Outbound):
    """A model of the catalog."""

    id: str
    model_ref: str
    digest: str | None = None
    cost_per_1k_tokens: float = 0.0
    metadata: dict[str, str] = {}
    state: ModelState = ModelState.ACTIVE
    created_at: datetime
    updated_at: datetime
    verification: Verification = Verification()


class CatalogList(Outbound):
    """GET /v2/catalog/models."""

    models: list[CatalogModel]
    count: int


class NodeModels(Outbound):
    """The models and pools of one node."""

    node_id: str
    address: str
    online: bool
    models: list[str]
    pools: list[str]


class Availability(Outbound):
    """GET /v2/catalog/availability. In HOME_PROFILE the only node is `local`."""

    nodes: dict[str, NodeModels]
    total_models: int
    replicated_models: int
    single_node_models: int
