"""All routes of the queen: the hot ones, which the gate serves itself, and the others on Quart."""

from functools import partial

from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from llama_orch.contracts.catalog import NodeModels
from llama_orch.http.server.exchange import HotRoutes
from queen_rbee.api.artifacts import add_artifacts
from queen_rbee.api.catalog import add_catalog
from queen_rbee.api.nodes import add_heartbeats, add_nodes
from queen_rbee.api.openapi.route import add_description
from queen_rbee.api.operations import add_operations
from queen_rbee.api.sessions import add_sessions
from queen_rbee.api.tasks import HotHandlers
from queen_rbee.api.v1.anthropic import add_anthropic
from queen_rbee.api.v1.models import add_model_list, add_models
from queen_rbee.api.v1.openai import add_openai
from queen_rbee.api.v1.passages import Passages
from queen_rbee.api.views import add_scan, add_views
from queen_rbee.catalog.availability import local_node, models_of
from queen_rbee.parts import Parts
from queen_rbee.store.protocol import StoreFailure, not_stored
from queen_rbee.tasks.task import Task


def hot_routes(parts: Parts) -> HotRoutes:
    """What must be fast: tasks and their events, /v1."""
    routes = HotRoutes(parts.settings.body_limit)
    HotHandlers(parts.intake, parts.dispatcher, parts.queue, parts.book, parts.sessions).add_to(routes)

    def budgets(task: Task) -> list[tuple[str, str]]:
        session_id = task.request.session_id
        return parts.sessions.budget_headers(session_id) if session_id else []

    passages = Passages(parts.intake, parts.dispatcher, parts.queue, parts.registry, budgets)
    add_openai(routes, passages, parts.catalog)
    add_model_list(routes, parts.registry, parts.catalog)
    add_anthropic(routes, passages, parts.catalog)
    add_heartbeats(routes, parts.fleet)
    return routes


def cool_routes(app: QuartTrio, parts: Parts) -> None:
    """What people and scripts look at now and then."""

    @app.errorhandler(StoreFailure)
    async def not_kept(failure: StoreFailure) -> HTTPException | ResponseReturnValue:
        return await app.handle_user_exception(not_stored(failure))

    add_views(app, parts.book, parts.registry, parts.intake, parts.store)
    add_scan(app, parts.handoffs)
    add_nodes(app, parts.fleet, parts.operations.managers, cloud=parts.settings.cloud_profile)
    add_operations(app, parts.operations)
    add_sessions(app, parts.sessions)
    add_catalog(app, parts.catalog, partial(_nodes, parts))
    add_artifacts(app, parts.artifacts)
    add_models(app, parts.registry, parts.catalog)
    add_description(app)


def _nodes(parts: Parts) -> list[NodeModels]:
    """What each node has now."""
    if parts.settings.cloud_profile:
        return [models_of(node) for node in parts.fleet.views()]
    return [local_node(parts.registry.pools(), str(parts.settings.address))]
