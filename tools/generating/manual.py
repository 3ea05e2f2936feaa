"""From the declarations of a daemon's settings to the manual page of its environment file, in section 5."""

from collections.abc import Iterator

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import Settings
from tools.generating.documents import default_text, in_force_by
from tools.generating.roff import example, literal, prose

FORM = (
    "A file of lines NAME=VALUE, read by systemd as systemd.exec(5) says of EnvironmentFile=. A line that begins with "
    "# or ; is a comment; behind a value there is none. A value may stand in quotes. Neither variables nor commands "
    "in it are replaced. An empty value counts as not set. Where the daemon runs without systemd, it has the same "
    "variables from whoever starts it."
)
ONCE = "Settings are read at the start and never change while the daemon runs. After a change:"
CREDENTIAL = (
    "A token in /etc/llama-orch/api-token, which the service has as a credential, is not seen so; add "
    "LLORCH_API_TOKEN_FILE=/etc/llama-orch/api-token, and likewise for a second one."
)
CHECK = (
    "What would be in force, with the source of each value (default, environment, credential or file; the name of "
    "another variable where that decides), is shown by --check-config. It reads the environment that it is given. What "
    "the service would get is checked so, by root (a shell, other than systemd, replaces what stands behind a $, and "
    "knows no comment with ;):"
)
REFUSED = (
    "Where something cannot be used, this and the start end with exit status 78 and every problem at once: the "
    "variable, its value, what is allowed. A variable that no daemon of llama-orch knows and that looks like one of "
    "theirs is probably misspelt: a notice at the start names it with the nearest known one."
)
ONLY = {
    "home": "HOME_PROFILE only; otherwise without effect, which a notice says.",
    "cloud": "CLOUD_PROFILE only; otherwise without effect, which a notice says.",
}
LEFT_ALIGNED = ".ad l\n.ds AD l\n"
"""The second is for groff 1.23, which adjusts each paragraph anew and warns of lines that it cannot."""
ADDITION = "An addition to the configuration reference."


def manual_page(daemon: str, settings: type[Settings], version: str, date: str) -> str:
    """The page DAEMON.env(5) of release `version`, dated `date`."""
    name = f"{daemon}.env"
    about = f"{name} - environment of {daemon}, a daemon of llama-orch: every variable that it reads"
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
    yield f"{prose(FORM)}\n.PP\n{prose(ONCE)}\n"
    yield example([f"# {command}" for command in in_force_by(daemon)])
    yield f".PP\n{prose(CHECK)}\n"
    yield example([f"# ( set -a; . /etc/llama-orch/{daemon}.env; {daemon} --check-config )"])
    if any(var.credential for var in settings.variables().values()):
        yield f".PP\n{prose(CREDENTIAL)}\n"
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
        sources += [f"the file that {var.file} names"] if var.file else []
        first = f" The first of these counts: {', '.join([*sources, 'this variable'])}." if sources else ""
        yield f"A secret, only ever shown as its fingerprint, token_fp6.{first}"
    if var.addition:
        yield ADDITION


def _profiles(daemon: str, settings: type[Settings]) -> Iterator[str]:
    if settings.profile is Settings.profile:
        yield f"{prose(f'{daemon} is the same in HOME_PROFILE and CLOUD_PROFILE.')}\n"
        return
    yield f"{prose(settings.profile.__doc__ or '')}\n"
    for profile in ("home", "cloud"):
        names = ", ".join(var.env for var in settings.variables().values() if var.profile == profile)
        if names:
            yield f".PP\n{prose(f'{profile.upper()}_PROFILE only: {names}.')}\n"


def _conflicts(settings: type[Settings]) -> Iterator[str]:
    if rules := settings.rules():
        yield "Variables that are right by themselves are refused together where they break one of these rules.\n"
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
