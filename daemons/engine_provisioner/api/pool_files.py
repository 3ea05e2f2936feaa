"""Routes on the pools files, for orchctl. Nothing is written here: the files belong to root."""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from engine_provisioner.api.pools import refusal
from engine_provisioner.plan.pool_plan import Problem
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.spec import pools_directory
from engine_provisioner.spec.drafts import Draft, make_draft
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import PoolsFileError, parse_files
from engine_provisioner.spec.replacements import PoolsSource
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pool_files import ConfiguredPool, ConfiguredPools, PoolDraft, PoolFile
from llama_orch.http.server.routes import RequestBody, json_reply, route

LISTED = {200: json_reply("The pools of the files as they are now, with their state.", ConfiguredPools)}
DRAFTED = {200: json_reply("A valid file, and where it belongs.", PoolFile)}
DRAFT = RequestBody(PoolDraft, {"a model": {"model": "file:/srv/models/model.gguf"}})


Obstacles = Callable[[Pool], Awaitable[Sequence[Problem]]]


class PoolFileRoutes:
    """The pools file of `source` need not exist. `obstacles` returns why a new pool could not start."""

    def __init__(self, source: PoolsSource, reports: PoolReports, obstacles: Obstacles) -> None:
        self._source = source
        self._path = source.path.absolute()
        self._directory = pools_directory.drop_in_directory(self._path)
        self._reports = reports
        self._obstacles = obstacles

    @route("GET", "/v2/pools", "List the configured pools", LISTED, errors=(409,))
    async def list_pool_files(self) -> ConfiguredPools:
        try:
            configured = await trio.to_thread.run_sync(self._read)
            models = await trio.to_thread.run_sync(self._models)
        except PoolsFileError as error:
            raise ApiError(409, refusal(error)) from error
        paths = [path for path, _pool in configured]
        pools = [self._view(path, pool, models[pool.id], only=paths.count(path) == 1) for path, pool in configured]
        return ConfiguredPools(directory=str(self._directory), pools=pools)

    @route("POST", "/v2/pools/draft", "Check a new pool and return its file", DRAFTED, body=DRAFT, errors=(409,))
    async def draft_pool(self, request: PoolDraft) -> PoolFile:
        try:
            draft = await trio.to_thread.run_sync(self._draft, request)
        except PoolsFileError as error:
            raise ApiError(409, refusal(error)) from error
        if draft.content is not None and (problems := await self._obstacles(draft.pool)):
            raise ApiError(409, _cannot_start(draft.pool_id, problems))
        return PoolFile(pool_id=draft.pool_id, path=str(draft.path), content=draft.content, note=draft.note)

    def _read(self) -> list[tuple[Path, Pool]]:
        return parse_files(pools_directory.read_files(self._path))

    def _models(self) -> dict[str, str | None]:
        """Return the model that each pool has at present: a reload may have replaced that of its file."""
        return {pool.id: model_name(pool.model.ref) if pool.model else None for pool in self._source.read() or []}

    def _draft(self, request: PoolDraft) -> Draft:
        files = pools_directory.read_files(self._path)
        return make_draft(request, files, self._directory, shutil.which("llama-server"))

    def _view(self, path: Path, pool: Pool, model: str | None, *, only: bool) -> ConfiguredPool:
        report = self._reports.report(pool.id)
        written = model_name(pool.model.ref) if pool.model else None
        return ConfiguredPool(
            pool_id=pool.id,
            path=str(path),
            only=only and path.parent == self._directory,
            engine=pool.engine,
            mode=pool.provisioning.mode,
            model=model,
            file_model=written if written != model else None,
            state=report.state if report else None,
            detail=report.detail if report else None,
            last_error=report.last_error if report else None,
        )


def _cannot_start(pool_id: str, problems: Sequence[Problem]) -> ErrorBody:
    """Return the answer for a pool that could not start here."""
    message = "\n  ".join(
        [f"pool {pool_id} could not start here, nothing has changed:", *(p.message for p in problems)]
    )
    hint = "\n".join(dict.fromkeys(problem.hint for problem in problems if problem.hint))
    return ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint or None, pool_id=pool_id)
