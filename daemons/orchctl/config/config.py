"""orchctl config: the settings of the daemons on this machine, and where each comes from."""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument
from orchctl.output import print_progress, write, write_json

if TYPE_CHECKING:
    from orchctl.config.sources import Setting, UnitSources

DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")


async def show_config(options: argparse.Namespace, queen: QueenClient) -> None:
    """Print the settings of each daemon that differ from their defaults; all of them with --all."""
    from llama_orch.settings.declared import DECLARED
    from orchctl.config.sources import settings_of
    from orchctl.config.units import unit_sources

    chosen = [options.daemon] if getattr(options, "daemon", None) else DAEMONS
    found = []
    for daemon in chosen:
        sources = await unit_sources(daemon, os.environ)
        settings = settings_of(sources, DECLARED[daemon])
        shown = [setting for setting in settings if setting.changed or getattr(options, "all", False)]
        found.append((sources, shown))
    if options.json:
        write_json({"daemons": [document(sources, settings) for sources, settings in found]})
    else:
        write("\n\n".join("\n".join(lines(sources, settings)) for sources, settings in found) + "\n")
    for sources, _settings in found:
        for path in sources.unreadable:
            print_progress(f"{path} cannot be read by this user, so its settings are missing; try sudo")


def document(sources: "UnitSources", settings: "Sequence[Setting]") -> dict[str, object]:
    """Return one daemon for --json. `running` is null if the running daemon has the same value, or cannot be seen."""
    return {
        "daemon": sources.daemon,
        "unit": sources.unit,
        "running": sources.running,
        "unreadable": [*map(str, sources.unreadable)],
        "settings": [
            {
                "variable": each.variable,
                "value": each.value,
                "source": each.source,
                "default": each.default,
                "running": each.running,
            }
            for each in settings
        ],
    }


def lines(sources: "UnitSources", settings: "Sequence[Setting]") -> Iterator[str]:
    """Yield the lines of one daemon."""
    from orchctl.tables import format_table, one_line

    where = sources.unit or "no unit here"
    yield f"{sources.daemon} ({where}{'' if sources.running or not sources.unit else ', not running'})"
    if not settings:
        yield "every setting has its default"
        return
    yield format_table(
        [("VARIABLE", "VALUE", "FROM"), *((each.variable, one_line(each.value), each.source) for each in settings)]
    )
    for each in settings:
        if each.running is not None:
            yield f"{each.variable}: {sources.daemon} runs with {one_line(each.running)} until it is restarted"


DAEMON = argument("daemon", nargs="?", choices=DAEMONS, metavar="DAEMON", help=f"one of {', '.join(DAEMONS)}")
ALL = argument("--all", action="store_true", help="show the settings that have their default, too")
CONFIG = CliCommand(
    "config",
    "show the settings of the daemons on this machine, and where each value comes from",
    show_config,
    subcommands=[CliCommand("show", "show the settings of all daemons, or of one", show_config, [DAEMON, ALL])],
)
