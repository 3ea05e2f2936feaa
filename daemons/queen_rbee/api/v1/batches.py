"""Routes of /v1/batches."""

from quart import request

from llama_orch.contracts.batches import Batch, BatchList, NewBatch
from llama_orch.http.server.routes import RequestBody, json_reply, route
from queen_rbee.api.v1.files import AFTER, LIMIT, page_of
from queen_rbee.batches.batches import Batches

NEW_BATCH = RequestBody(
    NewBatch,
    {
        "chats": {
            "input_file_id": "file-0123456789abcdef0123456789abcdef",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
    },
)


class BatchRoutes:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    @route(
        "POST",
        "/v1/batches",
        "Run the requests of a file when nobody else needs the engines",
        {200: json_reply("The batch.", Batch, batch_id="/id")},
        body=NEW_BATCH,
        errors=(404, 429, 503),
    )
    async def create_batch(self, new: NewBatch) -> Batch:
        return await self._batches.create(new)

    @route(
        "GET",
        "/v1/batches",
        "List the batches, newest first",
        {200: json_reply("The batches.", BatchList, batch_id="/data/0/id")},
        parameters=(LIMIT, AFTER),
        errors=(400, 404),
    )
    async def list_batches(self) -> BatchList:
        self._batches.check_enabled()
        page, more = page_of(self._batches.newest_first(), request.args)
        return BatchList(
            data=page, has_more=more, first_id=page[0].id if page else None, last_id=page[-1].id if page else None
        )

    @route("GET", "/v1/batches/{batch_id}", "Get a batch", {200: json_reply("The batch.", Batch)})
    async def get_batch(self, batch_id: str) -> Batch:
        return self._batches.get(batch_id)

    @route(
        "POST",
        "/v1/batches/{batch_id}/cancel",
        "Cancel a batch",
        {200: json_reply("The batch; it is cancelled when its running requests have ended.", Batch)},
        errors=(409, 503),
        description="What is done stays, and is in the result files.",
    )
    async def cancel_batch(self, batch_id: str) -> Batch:
        return await self._batches.cancel(batch_id)
