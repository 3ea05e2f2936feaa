"""orchctl artifacts: small documents known by their digest."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from llama_orch.contracts.artifacts import Artifact, ArtifactHead, ArtifactList
from llama_orch.service.command_line import Parser
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below
from orchctl.command import UNSET, Commands, identifier, paged
from orchctl.errors import CommandError
from orchctl.output import show
from orchctl.paging import show_pages
from orchctl.tables import age, one_line, table, whole
from orchctl.texts import read_stdin

PATH = "/v2/artifacts"
HEADER = ("ARTIFACT", "KIND", "AGE", "BYTES", "TAGS")
KIND = "document"


def add(commands: Commands) -> None:
    """Add the command `artifacts` with those below it; alone it lists."""
    command = commands.add("artifacts", list_artifacts, "the artifacts: list, show, put")
    below_it = Commands(command)
    _filters(command, None)
    _filters(below_it.add("list", list_artifacts, "the artifacts, the newest first"), UNSET)
    shown = below_it.add("show", show_artifact, "an artifact with its content")
    shown.add_argument("id", type=identifier, metavar="ID", help="its SHA-256, 64 hex digits")
    command = below_it.add("put", put, "store JSON as an artifact")
    command.add_argument("file", metavar="FILE", help="file that holds the JSON; - reads standard input")
    command.add_argument("--kind", default=UNSET, help=f"its kind (default: {KIND})")
    command.add_argument("--tag", dest="tags", action="append", help="repeatable")
    command.add_argument("--parent", type=identifier, metavar="ID", help="the artifact that this one was made of")


def _filters(command: Parser, default: str | None) -> None:
    command.add_argument("--kind", default=default, help="only those of this kind")
    command.add_argument("--tag", default=default, help="only those with this tag")
    paged(command, default)


async def list_artifacts(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of artifacts. Raises CommandError."""
    await show_pages(queen, PATH, options, ArtifactList, artifacts_text, kind=options.kind, tag=options.tag)


def artifacts_text(found: Sequence[ArtifactList]) -> str:
    """One line an artifact."""
    rows = [_row(head) for page in found for head in page.artifacts]
    return table([HEADER, *rows]) if rows else "there are no such artifacts"


def _row(head: ArtifactHead) -> tuple[str, ...]:
    return head.id, head.kind, age(head.created_at), str(head.size_bytes), one_line(", ".join(head.tags))


async def show_artifact(options: argparse.Namespace, queen: QueenClient) -> None:
    """One artifact. Raises CommandError."""
    show(options.json, await queen.get(below(PATH, options.id)), Artifact, artifact_text)


def artifact_text(found: Artifact) -> str:
    """What is known of it, and below that its content."""
    return f"{whole(found, without='content')}\n\n{json.dumps(found.content, indent=2, ensure_ascii=False)}"


async def put(options: argparse.Namespace, queen: QueenClient) -> None:
    """Store a document; people get its id. Raises CommandError."""
    content = _content(options.file, read_stdin() if options.file == "-" else _text_of(options.file))
    wanted = {"kind": options.kind or KIND, "tags": options.tags, "parent": options.parent}
    body = {"content": content, **{name: value for name, value in wanted.items() if value is not None}}
    show(options.json, await queen.call("POST", PATH, body), ArtifactHead, lambda head: head.id)


def _text_of(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}", "", ExitStatus.NO_INPUT) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{name} is no text", "JSON is UTF-8.", ExitStatus.DATA) from error


def _content(name: str, text: str) -> object:
    """The JSON in `text`. Raises CommandError with the place where it is none."""
    try:
        found: object = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        where = "standard input" if name == "-" else name
        raise CommandError(f"{where} is not JSON: {error}", "", ExitStatus.DATA) from error
    return found


def _finite(word: str) -> float:
    if not math.isfinite(float(word)):
        raise ValueError(f"{word} is no number that JSON can say")
    return float(word)
