"""Generate DAEMON.env(5), the manual page of a daemon's environment file, from its settings."""

from collections.abc import Iterator

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import Settings
from tools.generating.documents import apply_commands, default_text
from tools.generating.roff import example, literal, prose

FORMAT = (
    "This file has one NAME=VALUE per line. systemd reads it as described for EnvironmentFile= in systemd.exec(5). A "
    "line that begins with # or ; is a comment; comments after a value are not possible. Values may be quoted. "
    "Variables and commands in values are not expanded. An empty value counts as unset. Without systemd the daemon "
    "reads the same variables from its environment."
)
AT_START = "Settings are read only when the daemon starts. To apply a change:"
CHECK = (
    "The option --check-config prints the effective value of each setting and its source: default, environment, "
    "credential, file, or the name of another variable that determines it. It reads the environment of the service, "
    "with its credentials, and then that of the shell, whose variables take precedence. Run it as root, who can read "
    "this file."
)
REFUSED = (
    "If a setting is invalid, both --check-config and the daemon exit with status 78 and report all problems: the "
    "variable, its value, and the allowed values. A variable that has a prefix of llama-orch and that no daemon knows "
    "is probably misspelt: the daemon reports it at the start, with the most similar known variable."
)
ONLY = {
    "home": "HOME_PROFILE only. In CLOUD_PROFILE it has no effect and is reported at the start.",
    "cloud": "CLOUD_PROFILE only. In HOME_PROFILE it has no effect and is reported at the start.",
}
LEFT_ALIGNED = ".ad l\n.ds AD l\n"
"""The second request is for groff 1.23, which resets the adjustment in each paragraph and warns of long lines."""
ADDITION = "An addition to the configuration reference."


def manual_page(daemon: str, settings: type[Settings], version: str, date: str) -> str:
    """Return the page DAEMON.env(5) of release `version`, dated `date`."""
    name = f"{daemon}.env"
    about = f"{name} - environment variables of {daemon}, a daemon of llama-orch"
    sections = {
        "NAME": about.replace("-", r"\-") + "\n",
        "SYNOPSIS": f"{literal(f'/etc/llama-orch/{name}')}\n",
        "DESCRIPTION": "".join(_description(daemon, settings)),
        "VARIABLES": "".join(_entry(settings, field, var) for field, var in settings.variables().items()),
        "PROFILES": "".join(_profiles(daemon, settings)),
        "CONFLICTS": "".join(_conflicts(settings)),
        "EXAMPLES": "".join(_examples(settings)),
        "SEE ALSO": f"{_see_also(daemon)}\n",
    }
    head = f'.TH {name} 5 "{date}" "llama-orch {version}" "llama-orch"\n{LEFT_ALIGNED}'
    return head + "".join(f".SH {title}\n{text}" for title, text in sections.items() if text)


def _description(daemon: str, settings: type[Settings]) -> Iterator[str]:
    yield f"{prose(FORMAT)}\n.PP\n{prose(AT_START)}\n"
    yield example([f"# {command}" for command in apply_commands(daemon)])
    yield f".PP\n{prose(CHECK)}\n"
    yield example([f"# {daemon} --check-config"])
    yield f".PP\n{prose(REFUSED)}\n"


def _entry(settings: type[Settings], field: str, var: Var) -> str:
    default = default_text(settings, field, var)
    shown = prose(default) if " " in default or default.startswith("(") else literal(default)
    packaged = f"\nThe packages set {literal(var.packaged)}." if var.packaged is not None else ""
    where = "Example, in a shell" if "$(" in var.example else "Example"
    lines = [
        prose(f"{var.meaning} {var.more}"),
        f"Allowed: {prose(var.allowed)}.",
        f"Default: {shown}.{packaged}",
        *(prose(text) for text in _notes(var)),
        f"{where}: {literal(f'{var.env}={var.example}')}",
    ]
    return f".TP\n\\fB{var.env}\\fP\n" + "\n.br\n".join(lines) + "\n"


def _notes(var: Var) -> Iterator[str]:
    if var.profile in ONLY:
        yield ONLY[var.profile]
    if var.required:
        yield f"Required {var.required}."
    if var.secret:
        sources = [f"the systemd credential {var.credential}"] if var.credential else []
        sources += [f"the file named by {var.file}"] if var.file else []
        first = f" The first of these sources is used: {', '.join([*sources, 'this variable'])}." if sources else ""
        yield f"A secret, shown only as its fingerprint, token_fp6.{first}"
    if var.addition:
        yield ADDITION


def _profiles(daemon: str, settings: type[Settings]) -> Iterator[str]:
    if settings.profile is Settings.profile:
        yield f"{prose(f'{daemon} behaves the same in HOME_PROFILE and CLOUD_PROFILE.')}\n"
        return
    yield f"{prose(settings.profile.__doc__ or '')}\n"
    for profile in ("home", "cloud"):
        names = ", ".join(var.env for var in settings.variables().values() if var.profile == profile)
        if names:
            yield f".PP\n{prose(f'{profile.upper()}_PROFILE only: {names}.')}\n"


def _conflicts(settings: type[Settings]) -> Iterator[str]:
    if rules := settings.rules():
        yield "Valid values are refused together if they break one of these rules:\n"
        for check in rules.values():
            yield f".IP \\(bu 2\n{prose(check.__doc__ or '')}\n"


def _examples(settings: type[Settings]) -> Iterator[str]:
    for index, given in enumerate(settings.examples):
        paragraph = ".PP\n" if index else ""
        yield f"{paragraph}{prose(given.title)}\n"
        yield example(f"{name}={value}" for name, value in given.values.items())


def _see_also(daemon: str) -> str:
    others = [f"{name}.env" for name in ("queen-rbee", "pool-managerd", "engine-provisioner") if name != daemon]
    pages = [f"{daemon}(8)", *(f"{name}(5)" for name in others), "llama-orch(7)", "systemd.exec(5)"]
    return prose(", ".join(pages))
