"""orchctl support-bundle: what helps to find a fault, in one file without secrets and prompts."""

import argparse
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument
from orchctl.output import StatusLine, write, write_json


async def support_bundle(options: argparse.Namespace, queen: QueenClient) -> None:
    """Write the bundle and print what it contains. Raises CommandError."""
    from orchctl.bundle.archive import write_archive
    from orchctl.bundle.gathering import gather

    now = time.time()
    prefix = f"llama-orch-{_host()}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}"
    path = Path(options.bundle or f"{prefix}.tar.gz")
    line = StatusLine()
    try:
        files = await gather(queen, line.show)
        write_archive(path, prefix, files, now)
    finally:
        line.clear()
    _print(options, path, files)


def _print(options: argparse.Namespace, path: Path, files: Sequence[tuple[str, bytes]]) -> None:
    from orchctl.tables import format_table, size

    if options.json:
        write_json({"path": str(path.absolute()), "files": {name: len(content) for name, content in files}})
        return
    write(f"{format_table([('FILE', 'SIZE'), *((name, size(len(content))) for name, content in files)])}\n\n")
    write(f"{path.absolute()} ({size(path.stat().st_size)}) can be read by its owner only.\n")
    write("Secrets in it are replaced by ***, and it has no prompts. Look through it before you pass it on.\n")


def _host() -> str:
    name = socket.gethostname().partition(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name)[:64] or "machine"


SUPPORT_BUNDLE = CliCommand(
    "support-bundle",
    "write what helps to find a fault into a file: versions, settings, findings, state, journal; no secrets",
    support_bundle,
    [
        argument(
            "-o",
            "--output",
            dest="bundle",
            metavar="FILE",
            completion="files",
            help="file to write, a tar.gz (default: llama-orch-HOST-TIME.tar.gz in this directory)",
        )
    ],
)
