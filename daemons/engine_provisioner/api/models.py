"""Routes of the models on disk: list, pull, pin and remove."""

from collections.abc import Sequence

import trio
from pydantic import ValidationError
from quart import Response, request

from engine_provisioner.api.model_headers import ModelHeaders
from engine_provisioner.cache.model_cache import ModelCache, ModelInUse, UnknownModel, UsedModel
from engine_provisioner.operations import TooManyOperations
from engine_provisioner.pulls import Pulls
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.spec.pool_spec import Model
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.contracts.models import DiskModel, DiskModelList, ModelFile, ModelRemoved, PinRequest, PullRequest
from llama_orch.contracts.node_operations import OperationAccepted
from llama_orch.contracts.validation import invalid_fields
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.mounting import json_response_in_thread
from llama_orch.http.server.routes import Parameter, Reply, RequestBody, json_reply, route

REF_LIMIT = 2048
LIST_HINT = "GET /v2/models (orchctl models --disk) lists the models on disk."
REMOVAL = (
    Parameter("ref", "The reference of the model, as in the list.", {"type": "string", "maxLength": REF_LIMIT}),
    Parameter("force", "true: remove it although pools use it.", {"type": "boolean"}),
)
BUSY_RETRY_MS = 10_000


class ModelRoutes:
    """`limit_bytes` is the limit of the cache, None for none."""

    def __init__(self, cache: ModelCache, pulls: Pulls, limit_bytes: int | None) -> None:
        self._cache = cache
        self._pulls = pulls
        self._limit = limit_bytes
        self._headers = ModelHeaders()
        self._one_at_a_time = trio.CapacityLimiter(1)

    @route("GET", "/v2/models", "List the models on disk", {200: json_reply("The models.", DiskModelList)})
    async def list_models(self) -> Response:
        models = await self._cache.models()
        async with self._one_at_a_time:  # the headers are for one thread at a time
            return await json_response_in_thread(lambda: self._list(models))

    @route(
        "POST",
        "/v2/models/pull",
        "Pull a model",
        {202: json_reply("The pull has been started, or runs already.", OperationAccepted)},
        body=RequestBody(PullRequest, {"by URL": {"ref": "https://example.org/models/model.gguf"}}),
        errors=(429,),
    )
    async def pull_model(self, pull: PullRequest) -> OperationAccepted:
        model = checked(pull.ref)
        try:
            return OperationAccepted(operation_id=self._pulls.start(model).id)
        except TooManyOperations as error:
            message = "too many operations have not ended yet"
            hint = "Wait for one, or cancel one: DELETE /v2/operations/ID."
            body = ErrorBody(code=ErrorCode.ADMISSION_REJECT, message=message, hint=hint, retriable=True)
            body = body.model_copy(update={"retry_after_ms": BUSY_RETRY_MS})
            raise ApiError(429, body) from error

    @route(
        "POST",
        "/v2/models/pin",
        "Pin or unpin a model",
        {204: Reply("The model is pinned, or no longer.")},
        body=RequestBody(PinRequest),
        errors=(404,),
    )
    async def pin_model(self, pin: PinRequest) -> None:
        try:
            await self._cache.pin(pin.ref, pin.pinned)
        except UnknownModel as error:
            raise no_such_model(pin.ref) from error
        except OSError as error:
            raise disk_error(error) from error

    @route(
        "DELETE",
        "/v2/models",
        "Remove a model from the disk",
        {200: json_reply("The model has been removed.", ModelRemoved)},
        parameters=REMOVAL,
        errors=(400, 404, 409),
    )
    async def remove_model(self) -> ModelRemoved:
        ref, force = request.args.get("ref", ""), request.args.get("force", "false")
        if not ref or len(ref) > REF_LIMIT:
            raise ApiError(400, invalid([("ref", f"must have 1 to {REF_LIMIT} characters")]))
        if force not in ("true", "false"):
            raise ApiError(400, invalid([("force", "must be true or false")]))
        try:
            return ModelRemoved(freed_bytes=await self._cache.remove(ref, force=force == "true"))
        except UnknownModel as error:
            raise no_such_model(ref) from error
        except ModelInUse as error:
            message = f"the model {model_name(ref)} is used by {' and '.join(f'pool {pool}' for pool in error.pools)}"
            hint = "Remove the pool first, or force it: an engine that runs goes on, but cannot start again without it."
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint)) from error
        except OSError as error:
            raise disk_error(error) from error

    def _list(self, models: Sequence[UsedModel]) -> DiskModelList:
        blobs = {blob: size for used in models for blob, size in used.model.blobs.items()}
        return DiskModelList(
            models=[self._view(used) for used in models],
            count=len(models),
            total_bytes=sum(blobs.values()),
            limit_bytes=self._limit,
        )

    def _view(self, used: UsedModel) -> DiskModel:
        model, record = used.model, used.model.record
        summary = self._headers.summary(record.files[0].path)
        header = summary.header
        files = [
            ModelFile(path=str(file.path), size_bytes=file.size_bytes, digest=file.digest, role=file.role)
            for file in record.files
        ]
        return DiskModel(
            ref=record.ref,
            revision=record.revision,
            files=files,
            size_bytes=model.size_bytes,
            quantization=header.quantization if header else None,
            architecture=header.architecture if header else None,
            context=header.context_length or None if header else None,
            problem=summary.problem,
            fetched_at=record.fetched_at,
            used_at=model.used_at,
            pinned=model.pinned,
            recorded=model.recorded,
            owned=model.owned,
            pools=list(used.pools),
        )


def checked(ref: str) -> Model:
    """Return the model of `ref` if the pools file could name it, too. Raises ApiError 400."""
    try:
        return Model(ref=ref)
    except ValidationError as error:
        problems = [("ref", each.text) for each in invalid_fields(error)]
        raise ApiError(400, invalid(problems)) from error


def no_such_model(ref: str) -> ApiError:
    return not_found("model on disk", model_name(ref), LIST_HINT)


def disk_error(error: OSError) -> ApiError:
    message = f"the disk refused: {error.strerror or error} ({error.filename})"
    hint = "Check free space and that the cache directory belongs to engine-provisioner."
    return ApiError(500, ErrorBody(code=ErrorCode.INTERNAL, message=message, hint=hint))
