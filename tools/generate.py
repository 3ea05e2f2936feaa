"""Write the files that are generated from declarations; with `--check`, list those that are out of date."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.spec.pools_schema import pools_schema
from llama_orch.settings.loading import Settings
from llama_orch.telemetry.events.catalog import CATALOG
from llama_orch.telemetry.events.event import Event
from orchctl.parser import COMMANDS
from pool_managerd.settings import PoolManagerSettings
from queen_rbee.settings import QueenSettings
from tools.generating.command_index import command_index
from tools.generating.dashboards import DASHBOARDS, dashboard_file
from tools.generating.documents import default_text, environment_file
from tools.generating.manual import manual_page

ROOT = Path(__file__).resolve().parent.parent
DAEMONS: dict[str, type[Settings]] = {
    "queen-rbee": QueenSettings,
    "pool-managerd": PoolManagerSettings,
    "engine-provisioner": ProvisionerSettings,
}


def journal_catalog(events: Iterable[Event] = CATALOG) -> str:
    """Return the journal catalog, which `journalctl -x` shows below each event."""
    entries = []
    for event in events:
        subject = event.name.replace("_", " ")
        entries.append(
            f"-- {event.message_id}\nSubject: llama-orch: {subject}\nDefined-By: llama-orch\n"
            f"Documentation: man:llama-orch(7)\n\n{event.advice}\n"
        )
    return "\n".join(entries)


def suite() -> str:
    """Return the module that lists the variables of all daemons, which do not import each other."""
    names = sorted({var.env for settings in DAEMONS.values() for var in settings.variables().values()})
    lines = "".join(f'    "{name}",\n' for name in names)
    return (
        '"""The variables of all daemons, to tell a misspelt one from that of another daemon. Generated."""'
        f"\n\nVARIABLES = (\n{lines})\n"
    )


def declared() -> str:
    """Return the module with the variables of each daemon, for orchctl, which imports no daemon."""
    daemons = ""
    for daemon, settings in DAEMONS.items():
        daemons += f'    "{daemon}": (\n'
        for name, var in settings.variables().items():
            words = [_quoted(var.env), _quoted(default_text(settings, name, var))]
            words += ["secret=True"] if var.secret else []
            words += [f"{key}={_quoted(value)}" for key in ("credential", "file") if (value := getattr(var, key))]
            line = f"        Declared({', '.join(words)}),\n"
            wrapped = "        Declared(\n" + "".join(f"            {word},\n" for word in words) + "        ),\n"
            daemons += line if len(line) <= 121 else wrapped
        daemons += "    ),\n"
    return (
        '"""The variables of each daemon with their defaults, for programs that import no daemon. Generated."""\n\n'
        "from llama_orch.settings.declaration import Declared\n\n"
        f"DECLARED: dict[str, tuple[Declared, ...]] = {{\n{daemons}}}\n"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def release() -> tuple[str, str]:
    """Return version and date of the manual, taken from llama-orch(7)."""
    head = (ROOT / "man/llama-orch.7").read_text().partition("\n")[0]
    _th, _name, _section, date, version, _manual = shlex.split(head)
    return version.removeprefix("llama-orch "), date


def documents() -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each generated file."""
    for daemon, settings in DAEMONS.items():
        yield ROOT / f"packaging/env/{daemon}.env", environment_file(daemon, settings)
        yield ROOT / f"man/{daemon}.env.5", manual_page(daemon, settings, *release())
    yield ROOT / "daemons/llama_orch/settings/suite.py", suite()
    yield ROOT / "daemons/llama_orch/settings/declared.py", declared()
    yield ROOT / "packaging/journal/llama-orch.catalog", journal_catalog()
    yield ROOT / "packaging/pools.schema.json", pools_schema()
    yield ROOT / "daemons/orchctl/index.py", command_index(COMMANDS)
    for dashboard in DASHBOARDS:
        yield ROOT / f"packaging/monitoring/grafana/{dashboard.uid}.json", dashboard_file(dashboard)


def main() -> int:
    """Write the files. With --check only compare them; the exit status is 1 if one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; list the files that are out of date")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in documents() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {'out of date; run make generate' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
