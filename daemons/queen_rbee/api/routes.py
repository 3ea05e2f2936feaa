"""Registration of queen-rbee's routes: a new group of routes is added to GROUPS."""

from collections.abc import Callable, Mapping
from functools import partial

from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from llama_orch.contracts.catalog import NodeModels
from llama_orch.http.server.app import GROUPS as GROUPS_OF_EVERY_DAEMON
from llama_orch.http.server.exchange import HotRoutes
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.routes import Route, routes_of
from queen_rbee.api.artifacts import ArtifactRoutes
from queen_rbee.api.catalog import CatalogRoutes
from queen_rbee.api.description import DescriptionRoutes
from queen_rbee.api.live import LiveRoutes
from queen_rbee.api.manual import ManualRoutes
from queen_rbee.api.nodes import NodeIdConverter, NodeRoutes
from queen_rbee.api.ollama.disk_routes import OllamaDiskRoutes
from queen_rbee.api.ollama.loads import ResidentLoads
from queen_rbee.api.ollama.model_routes import OllamaModelRoutes
from queen_rbee.api.ollama.routes import OllamaRoutes
from queen_rbee.api.operations import OperationRoutes
from queen_rbee.api.page import PageRoutes
from queen_rbee.api.plain_status import plain_status
from queen_rbee.api.pools import PoolRoutes
from queen_rbee.api.sessions import SessionRoutes
from queen_rbee.api.task_listing import TaskListingRoutes
from queen_rbee.api.tasks import TaskRoutes
from queen_rbee.api.usage import UsageRoutes
from queen_rbee.api.v1.anthropic import AnthropicRoutes
from queen_rbee.api.v1.batches import BatchRoutes
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.files import FileRoutes
from queen_rbee.api.v1.models import ModelRoutes
from queen_rbee.api.v1.openai import OpenAiRoutes
from queen_rbee.api.v1.openai_responses import ResponsesRoutes
from queen_rbee.catalog.availability import local_node, models_of
from queen_rbee.parts import Parts
from queen_rbee.status import summary, unready
from queen_rbee.store.protocol import StoreFailure, not_stored
from queen_rbee.tasks.task import Task

GROUPS: Mapping[type, Callable[[Parts], object]] = {
    TaskRoutes: lambda parts: TaskRoutes(parts.intake, parts.dispatcher, parts.queue, parts.book, parts.sessions),
    TaskListingRoutes: lambda parts: TaskListingRoutes(parts.book, parts.intake, parts.store),
    SessionRoutes: lambda parts: SessionRoutes(parts.sessions),
    UsageRoutes: lambda parts: UsageRoutes(parts.keys),
    CatalogRoutes: lambda parts: CatalogRoutes(parts.catalog, partial(_nodes, parts)),
    ArtifactRoutes: lambda parts: ArtifactRoutes(parts.artifacts),
    PoolRoutes: lambda parts: PoolRoutes(parts.registry, parts.handoffs, parts.keeper),
    OperationRoutes: lambda parts: OperationRoutes(parts.operations, parts.loads, parts.reloads),
    NodeRoutes: lambda parts: NodeRoutes(
        parts.fleet, parts.operations.managers, parts.waker, cloud=parts.settings.cloud_profile
    ),
    ModelRoutes: lambda parts: ModelRoutes(parts.registry, parts.catalog),
    OpenAiRoutes: lambda parts: OpenAiRoutes(_relay(parts), parts.catalog),
    FileRoutes: lambda parts: FileRoutes(parts.batches),
    BatchRoutes: lambda parts: BatchRoutes(parts.batches),
    ResponsesRoutes: lambda parts: ResponsesRoutes(_relay(parts), parts.catalog, parts.responses),
    AnthropicRoutes: lambda parts: AnthropicRoutes(_relay(parts), parts.catalog),
    OllamaRoutes: lambda parts: OllamaRoutes(
        _relay(parts),
        parts.catalog,
        ResidentLoads(parts.registry, parts.keeper, parts.loads, parts.operations),
    ),
    OllamaModelRoutes: lambda parts: OllamaModelRoutes(parts.registry, parts.catalog, parts.keeper),
    OllamaDiskRoutes: lambda parts: OllamaDiskRoutes(parts.registry, parts.catalog, parts.settings.runtime_dir),
    LiveRoutes: lambda parts: LiveRoutes(parts.live, parts.settings.profile, ROUTES),
    PageRoutes: lambda parts: PageRoutes(partial(_plain_status, parts)),
    ManualRoutes: lambda _parts: ManualRoutes(),
    DescriptionRoutes: lambda _parts: DescriptionRoutes(ROUTES),
}
"""Each group of routes with its constructor."""

ROUTES: list[Route] = routes_of(*GROUPS_OF_EVERY_DAEMON, *GROUPS)
"""Every route of queen-rbee."""


def add_routes(app: QuartTrio, parts: Parts) -> HotRoutes:
    """Register all groups with `app`; return the table of those that the gate serves."""

    @app.errorhandler(StoreFailure)
    async def store_failed(failure: StoreFailure) -> HTTPException | ResponseReturnValue:
        return await app.handle_user_exception(not_stored(failure))

    app.url_map.converters["node"] = NodeIdConverter
    gate_routes = HotRoutes(parts.settings.body_limit)
    mount(app, gate_routes, *(construct(parts) for construct in GROUPS.values()))
    return gate_routes


def _relay(parts: Parts) -> EngineRelay:
    def budget_headers(task: Task) -> list[tuple[str, str]]:
        session_id = task.request.session_id
        return parts.sessions.budget_headers(session_id) if session_id else []

    return EngineRelay(parts.intake, parts.dispatcher, parts.queue, parts.registry, budget_headers)


def _nodes(parts: Parts) -> list[NodeModels]:
    """Return the models that each node has now."""
    if parts.settings.cloud_profile:
        return [models_of(node) for node in parts.fleet.views()]
    return [local_node(parts.registry.pools(), str(parts.settings.address))]


def _plain_status(parts: Parts) -> str:
    """Return the state for browsers without JavaScript. With a token, a page that anybody gets shows less."""
    load = None if parts.settings.token else summary(parts.queue, parts.registry, parts.fleet)
    return plain_status(parts.registry.pools(), unready(parts.registry), load)
