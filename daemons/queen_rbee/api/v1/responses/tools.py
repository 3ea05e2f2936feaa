"""The tools of a request for a response: functions that the client runs, alone or in namespaces.

Chats have no namespaces. The functions in one get the name of the namespace as a prefix, as in `mail__send`; calls of
them get both names back.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator, FailFast, Field, Tag

from llama_orch.contracts.openai import MAX_TOOLS
from queen_rbee.api.v1.chat.fields import Lenient, Name, Object

UNSUPPORTED_TOOL = (
    "{} is a tool that only OpenAI's service runs: declare a tool of type function and run it in the client, or turn "
    "this tool off in the client"
)
TOOL_TAGS = frozenset(("function", "namespace"))
"""The types that pydantic inserts into the location of a problem, each after the index of its tool."""


class Tool(Lenient):
    """A function that the client runs."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


def _type_of(tool: object) -> str | None:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return kind if isinstance(kind, str) else None


class Namespace(Lenient):
    """A group of functions."""

    type: Literal["namespace"]
    name: Name
    description: str | None = None
    tools: Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS), FailFast()]


AnyTool = Annotated[
    Annotated[Tool, Tag("function")] | Annotated[Namespace, Tag("namespace")],
    Discriminator(_type_of),
]
Tools = Annotated[tuple[AnyTool, ...] | None, Field(max_length=MAX_TOOLS), FailFast()]


@dataclass(frozen=True)
class Function:
    """A tool as it is offered to the model."""

    tool: Tool
    namespace: str | None = None

    @property
    def chat_name(self) -> str:
        return chat_name(self.tool.name, self.namespace)


def chat_name(name: str, namespace: str | None) -> str:
    """Return the name in a chat of a function."""
    return f"{namespace}__{name}" if namespace else name


def functions_of(tools: Iterable[Tool | Namespace]) -> Iterator[Function]:
    for tool in tools:
        if isinstance(tool, Namespace):
            yield from (Function(each, tool.name) for each in tool.tools)
        else:
            yield Function(tool)


class ToolName(Lenient):
    """A tool that may be called."""

    type: Literal["function"]
    name: Name


class ToolChoice(Lenient):
    """Whether and what to call. `name` is the only function allowed, `tools` are several."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    name: Name | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: tuple[ToolName, ...] = ()

    @property
    def names(self) -> frozenset[str] | None:
        """The functions that may be called; None means all."""
        if self.type == "function":
            return frozenset((self.name or "",))
        return frozenset(tool.name for tool in self.tools) if self.type == "allowed_tools" else None

    @property
    def for_chat(self) -> str:
        """A chat's `tool_choice`, if only the allowed tools are offered."""
        return {"function": "required", "allowed_tools": self.mode}.get(self.type, self.type)


def as_choice(given: object) -> object:
    """Convert the short form, a string. Lists become tuples: a function's result is validated as Python's."""
    if isinstance(given, str):
        return {"type": given}
    if not isinstance(given, dict):
        return given
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
