"""The route by which `systemctl reload` has a daemon reload its configuration."""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.service_reloads import RELOAD_PATH, ServiceReload, ServiceReloaded
from llama_orch.http.server.routes import RequestBody, json_reply, route
from llama_orch.service.reload import Reloader
from llama_orch.telemetry import correlation

RELOAD = RequestBody(ServiceReload, {"a new log level": {"environment": {"RUST_LOG": "debug"}}}, optional=True)
RELOADED = {200: json_reply("What was applied.", ServiceReloaded)}


class ConfigurationRoutes:
    """Served on the Unix socket only: its callers, root and the group llama-orch, are trusted with the environment."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    @route("POST", RELOAD_PATH, "Reload the configuration of this daemon", RELOADED, body=RELOAD, errors=(403, 409))
    async def reload_configuration(self, order: ServiceReload) -> ServiceReloaded:
        if correlation.peer.get() is not None:
            message = f"POST {RELOAD_PATH} is served on the daemon's Unix socket only"
            hint = "On its machine run systemctl reload, as root."
            raise ApiError(403, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
        outcome = await self._reloader.reload(order.environment)
        if outcome.refused:
            message = "; ".join(outcome.refused)
            hint = "Everything else has been applied, and what is refused stays as it was. Fix it, then reload again."
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))
        return ServiceReloaded(applied=list(outcome.applied), needs_restart=list(outcome.needs_restart))
