"""orchctl artifacts: small JSON documents, stored by their digest."""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_orch.contracts.artifacts import Artifact, ArtifactHead, ArtifactList
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path
from orchctl.command import PAGE_ARGUMENTS, CliCommand, ListedValues, argument, identifier
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS
from orchctl.output import print_response
from orchctl.paging import print_pages
from orchctl.stdin import read_stdin
from orchctl.tables import age, format_record, format_table, one_line

PATH = "/v2/artifacts"
HEADER = ("ARTIFACT", "KIND", "AGE", "BYTES", "TAGS")
DEFAULT_KIND = "document"


async def list_artifacts(options: argparse.Namespace, queen: QueenClient) -> None:
    filters = {"kind": options.kind, "tag": options.tag}
    await print_pages(queen, PATH, options, ArtifactList, format_artifacts, artifact_ids, **filters)


def artifact_ids(page: ArtifactList) -> Iterator[str]:
    return (head.id for head in page.artifacts)


def format_artifacts(pages: Sequence[ArtifactList]) -> str:
    rows = [_row(head) for page in pages for head in page.artifacts]
    return format_table([HEADER, *rows]) if rows else "there are no matching artifacts"


def _row(head: ArtifactHead) -> tuple[str, ...]:
    return head.id, head.kind, age(head.created_at), str(head.size_bytes), one_line(", ".join(head.tags))


async def show_artifact(options: argparse.Namespace, queen: QueenClient) -> None:
    print_response(options.json, await queen.get(build_path(PATH, options.id)), Artifact, format_artifact)


def format_artifact(artifact: Artifact) -> str:
    content = json.dumps(artifact.content, indent=2, ensure_ascii=False)
    return f"{format_record(artifact, exclude='content')}\n\n{content}"


async def put_artifact(options: argparse.Namespace, queen: QueenClient) -> None:
    """Store a document and print its id. Raises CommandError."""
    content = _parse_json(options.file, read_stdin() if options.file == "-" else _read_file(options.file))
    fields = {"kind": options.kind or DEFAULT_KIND, "tags": options.tags, "parent": options.parent}
    body = {"content": content, **{name: value for name, value in fields.items() if value is not None}}
    print_response(options.json, await queen.call("POST", PATH, body), ArtifactHead, lambda head: head.id)


def _read_file(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}", "", ExitStatus.NO_INPUT) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{name}: byte {error.start} is not valid UTF-8", "", ExitStatus.DATA) from error


def _parse_json(name: str, text: str) -> object:
    """Raises CommandError that names the position of the error."""
    try:
        document: object = json.loads(text, parse_constant=_finite_number, parse_float=_finite_number)
    except (ValueError, RecursionError) as error:
        source = "standard input" if name == "-" else name
        raise CommandError(f"{source} is not valid JSON: {error}", "", ExitStatus.DATA) from error
    return document


def _finite_number(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"JSON cannot represent {text}")
    return float(text)


FILTERS = [
    argument("--kind", help="show only artifacts of this kind"),
    argument("--tag", help="show only artifacts with this tag"),
    *PAGE_ARGUMENTS,
    *LIST_ARGUMENTS,
]

ARTIFACTS = CliCommand(
    "artifacts",
    "manage artifacts: list, show, put",
    list_artifacts,
    FILTERS,
    [
        CliCommand("list", "show the artifacts, newest first", list_artifacts, FILTERS),
        CliCommand(
            "show",
            "show an artifact with its content",
            show_artifact,
            [
                argument(
                    "id",
                    type=identifier,
                    metavar="ID",
                    help="SHA-256 of the artifact, 64 hex digits",
                    completion=ListedValues("artifacts list"),
                )
            ],
        ),
        CliCommand(
            "put",
            "store JSON as an artifact",
            put_artifact,
            [
                argument("file", metavar="FILE", help="file with the JSON; - reads standard input", completion="files"),
                argument("--kind", help=f"kind of the artifact (default: {DEFAULT_KIND})"),
                argument("--tag", dest="tags", action="append", help="repeatable"),
                argument("--parent", type=identifier, metavar="ID", help="artifact from which this one was derived"),
            ],
        ),
    ],
)
