"""The operations on what the queen keeps: sessions, the catalog of models, artifacts."""

from llama_orch.contracts.artifacts import Artifact, ArtifactHead, ArtifactList, NewArtifact
from llama_orch.contracts.catalog import Availability, CatalogList, CatalogModel, ModelStateChange, NewModel
from llama_orch.contracts.sessions import SessionChange, SessionList, SessionView
from queen_rbee.api.openapi.control import LIMIT, before
from queen_rbee.api.openapi.examples import PLAN
from queen_rbee.api.openapi.operation import ARTIFACT_ID, TEXT, UUID, Answer, Operation, Parameter, document, reading

SESSIONS = (
    reading(
        "/v2/sessions",
        "list_sessions",
        "Sessions, the most recently used first",
        SessionList,
        LIMIT,
        before(UUID),
        session_id="/sessions/0/session_id",
    ),
    reading("/v2/sessions/{session_id}", "get_session", "One session", SessionView),
    Operation(
        "PUT",
        "/v2/sessions/{session_id}",
        "change_session",
        "Limit a session, which is made if need be",
        {200: document("As it is now.", SessionView, session_id="/session_id")},
        body=SessionChange,
        errors=(503,),
    ),
    Operation(
        "DELETE",
        "/v2/sessions/{session_id}",
        "forget_session",
        "Forget a session",
        {204: Answer("It is forgotten.")},
        errors=(503,),
    ),
)

CATALOG = (
    Operation(
        "POST",
        "/v2/catalog/models",
        "add_model",
        "Add a model",
        {
            200: document("The same model is there already.", CatalogModel, model_id="/id"),
            201: document("It is there now; a digest is checked from now on.", CatalogModel, model_id="/id"),
        },
        body=NewModel,
        errors=(409, 503),
    ),
    reading("/v2/catalog/models", "list_models", "All models, by id", CatalogList, model_id="/models/0/id"),
    reading("/v2/catalog/models/{model_id}", "get_model", "One model", CatalogModel),
    Operation(
        "DELETE",
        "/v2/catalog/models/{model_id}",
        "delete_model",
        "Delete a model; no file is touched",
        {204: Answer("It is deleted.")},
        errors=(503,),
    ),
    Operation(
        "POST",
        "/v2/catalog/models/{model_id}/state",
        "change_model_state",
        "Retire a model, or bring it back",
        {202: document("As it is now.", CatalogModel)},
        body=ModelStateChange,
        errors=(503,),
    ),
    Operation(
        "POST",
        "/v2/catalog/models/{model_id}/verify",
        "verify_model",
        "Check a model's digest",
        {202: document("Being checked; see GET for the outcome.", CatalogModel)},
        errors=(503,),
    ),
    reading("/v2/catalog/availability", "get_availability", "Which node has which models", Availability),
)

ARTIFACTS = (
    Operation(
        "POST",
        "/v2/artifacts",
        "add_artifact",
        "Keep a document under the SHA-256 of its canonical JSON",
        {
            200: document("The same document is there already.", ArtifactHead, artifact_id="/id"),
            201: document("It is kept.", ArtifactHead, artifact_id="/id"),
        },
        body=NewArtifact,
        errors=(503,),
    ),
    reading(
        "/v2/artifacts",
        "list_artifacts",
        "Artifacts without their contents, newest first",
        ArtifactList,
        Parameter("kind", "Only those of this kind.", TEXT),
        Parameter("tag", "Only those with this tag.", TEXT),
        LIMIT,
        before(ARTIFACT_ID, PLAN),
        artifact_id="/artifacts/0/id",
        errors=(503,),
    ),
    reading("/v2/artifacts/{artifact_id}", "get_artifact", "One artifact", Artifact, errors=(503,)),
)
