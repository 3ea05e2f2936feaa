"""Routes on the pools files, for orchctl. Nothing is written here: the files belong to root."""

import shutil
from pathlib import Path

import trio

from engine_provisioner.api.pools import refusal
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.spec import pools_directory
from engine_provisioner.spec.drafts import Draft, make_draft
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import PoolsFileError, parse_files
from engine_provisioner.spec.replacements import PoolsSource
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pool_files import ConfiguredPool, ConfiguredPools, PoolDraft, PoolFile
from llama_orch.http.server.routes import RequestBody, json_reply, route

LISTED = {200: json_reply("The pools of the files as they are now, with their state.", ConfiguredPools)}
DRAFTED = {200: json_reply("A valid file, and where it belongs.", PoolFile)}
DRAFT = RequestBody(PoolDraft, {"a model": {"model": "file:/srv/models/model.gguf"}})


class PoolFileRoutes:
    """The pools file of `source` need not exist."""

    def __init__(self, source: PoolsSource, reports: PoolReports) -> None:
        self._source = source
        self._path = source.path.absolute()
        self._directory = pools_directory.drop_in_directory(self._path)
        self._reports = reports

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
