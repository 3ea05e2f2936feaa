"""Checks of a response's events: OpenAI's own types, numbers without gaps, and the published order."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent

EVENT_TYPES: Mapping[str, Any] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(ResponseStreamEvent)[0])
}
"""The openai package's model of each event."""
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
TEXTS = {"response.output_text": "text", "response.refusal": "refusal", "response.reasoning_text": "text"}
"""The events of texts, and the field that has the whole text at the end."""


def check_response(response: Mapping[str, Any]) -> None:
    """Validate a response with the openai package's model."""
    Response.model_validate(response)


def check_events(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Check all events of a stream; return the response of the last one."""
    for event in events:
        EVENT_TYPES[event["type"]].model_validate(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in TERMINAL
    assert not set(kinds[:-1]) & set(TERMINAL)
    response: dict[str, Any] = events[-1]["response"]
    assert {event["response"]["id"] for event in events if "response" in event} == {response["id"]}
    inside = [event for event in events[2:-1] if event["type"] != "error"]
    assert _items(inside) == response["output"]
    check_response(response)
    return response


def _items(events: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the items that `events` open and close, one after the other."""
    items: list[Any] = []
    at = 0
    while at < len(events):
        added = events[at]
        assert added["type"] == "response.output_item.added"
        assert (added["output_index"], added["item"]["status"]) == (len(items), "in_progress")
        end = next(i for i in range(at, len(events)) if events[i]["type"] == "response.output_item.done")
        item = events[end]["item"]
        assert (events[end]["output_index"], item["id"]) == (len(items), added["item"]["id"])
        for event in events[at + 1 : end]:
            assert (event["item_id"], event["output_index"]) == (item["id"], len(items))
        _check_inside(item, events[at + 1 : end])
        items.append(item)
        at = end + 1
    return items


def _check_inside(item: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> None:
    if item["type"] == "function_call":
        *deltas, done = events
        assert {event["type"] for event in deltas} <= {"response.function_call_arguments.delta"}
        assert done["type"] == "response.function_call_arguments.done"
        assert "".join(event["delta"] for event in deltas) == done["arguments"] == item["arguments"]
        return
    parts: list[Any] = []
    rest = list(events)
    while rest:
        added = rest.pop(0)
        assert (added["type"], added["content_index"]) == ("response.content_part.added", len(parts))
        name = rest[0]["type"].rpartition(".")[0]
        text = ""
        while rest[0]["type"] == f"{name}.delta":
            text += rest.pop(0)["delta"]
        whole, done = rest.pop(0), rest.pop(0)
        assert (whole["type"], whole[TEXTS[name]]) == (f"{name}.done", text)
        assert (done["type"], done["content_index"]) == ("response.content_part.done", len(parts))
        assert done["part"][TEXTS[name]] == text
        parts.append(done["part"])
    assert parts == item["content"]
