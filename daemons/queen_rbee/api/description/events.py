"""Server-sent events in words: OpenAPI 3.1 has no schema for the single events of a stream."""

from llama_orch.contracts.stream import EVENTS


def reference(name: str) -> str:
    """A link to a schema of this document."""
    return f"[{name}](#/components/schemas/{name})"


def _line(event: str) -> str:
    model = EVENTS[event]
    sentence = " ".join((model.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    return f"- `{event}`, {reference(model.__name__)}: {sentence}."


EVENTS_OF_A_TASK = "\n".join(
    (
        "Server-sent events, each with `id`, `event` and, as `data`, a JSON object:",
        "",
        *map(_line, EVENTS),
        "",
        "Any number of readers may read at once. Leaving the stream does not cancel the task. Comments keep it alive.",
    )
)
