"""Routes of the GPUs."""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.contracts.gpus import NodeGpuList
from llama_orch.http.server.routes import Reply, json_reply, route
from pool_managerd.gpus.monitor import GpuMonitor
from pool_managerd.gpus.views import gpu_views
from pool_managerd.pools.node_pools import NodePools


class GpuRoutes:
    def __init__(self, registry: NodePools, monitor: GpuMonitor) -> None:
        self._registry = registry
        self._monitor = monitor

    @route("GET", "/v2/gpus", "List the GPUs", {200: json_reply("The GPUs.", NodeGpuList)})
    async def list_gpus(self) -> NodeGpuList:
        gpus = self._registry.gpus
        views = gpu_views(gpus, self._monitor.totals, self._registry.replicas)
        return NodeGpuList(gpus=views, count=len(views), problem=gpus.problem)

    @route(
        "POST",
        "/v2/gpus/{gpu}/unfence",
        "End the fence of a GPU",
        {204: Reply("The GPU gets work again.")},
        errors=(409,),
    )
    async def unfence_gpu(self, gpu: str) -> None:
        if self._monitor.unfence(gpu):
            return
        known = [each.uuid for each in self._registry.gpus.known if gpu in (each.uuid, each.label)]
        if not known:
            listed = ", ".join(f"{each.label} ({each.uuid})" for each in self._registry.gpus.known) or "none"
            raise not_found("GPU", gpu, f"GPUs by index and UUID: {listed}.")
        message = f"GPU {known[0]} is not fenced"
        raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint="See GET /v2/gpus."))
