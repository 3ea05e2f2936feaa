"""The items of stored responses that a request refers to."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.bodies import invalid
from queen_rbee.api.v1.responses.items import ITEMS, Item, ItemReference
from queen_rbee.api.v1.responses.request import ResponsesRequest
from queen_rbee.api.v1.responses.resource import PREFIX
from queen_rbee.response_store import StoredResponse

ITEM_ID = re.compile(r"(?:msg|rs|fc)_([0-9a-f]{1,64})_[0-9]{1,9}")
"""The ids that `output.Output` gives: each contains that of its response."""
NOT_STORED = "is not the id of a stored item: send the item itself (clients do with `store: false`)"


def referenced_responses(request: ResponsesRequest) -> Iterator[str]:
    """Yield the ids of the responses whose items the input refers to."""
    for item in request.input:
        if isinstance(item, ItemReference) and (found := ITEM_ID.fullmatch(item.id)):
            yield f"{PREFIX}{found[1]}"


def conversation_items(earlier: Sequence[StoredResponse]) -> list[Item]:
    """Return the input and the output of each response, in their order."""
    items: list[Item] = []
    for response in earlier:
        items += ITEMS.validate_json(response.input)
        items += ITEMS.validate_python(tuple(_output(response)))
    return items


def with_referenced_items(request: ResponsesRequest, stored: Sequence[StoredResponse]) -> ResponsesRequest:
    """Return the request with items in place of references to them. Raises ApiError 400 if one is not stored."""
    if not any(isinstance(item, ItemReference) for item in request.input):
        return request
    outputs = {item["id"]: item for response in stored for item in _output(response)}
    items = [_resolved(index, item, outputs) for index, item in enumerate(request.input)]
    return request.model_copy(update={"input": tuple(items)})


def _resolved(index: int, item: Item, outputs: Mapping[str, object]) -> Item:
    if not isinstance(item, ItemReference):
        return item
    if item.id not in outputs:
        raise ApiError(400, invalid([(f"input[{index}].id", NOT_STORED)]))
    (found,) = ITEMS.validate_python((outputs[item.id],))
    return found


def _output(response: StoredResponse) -> list[dict[str, str]]:
    output: list[dict[str, str]] = json.loads(response.response)["output"]
    return output
