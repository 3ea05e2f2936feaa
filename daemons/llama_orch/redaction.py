"""Command lines and variables as a plan may show them: without secrets."""

import re
from collections.abc import Iterator, Mapping, Sequence

from llama_orch.urls import without_secrets

HIDDEN = "***"
SECRET = re.compile(r"token|secret|passw|credential|api[-_]?key|access[-_]?key|private[-_]?key|(?:^|[-_])key$", re.I)


def shown_arguments(argv: Sequence[str]) -> list[str]:
    """Return the arguments; values of options named like secrets, and credentials in URLs, are hidden."""
    return list(_shown(argv))


def _shown(argv: Sequence[str]) -> Iterator[str]:
    hide_next = False
    for word in argv:
        name, joined, _value = word.partition("=")
        if hide_next and not word.startswith("--"):
            yield HIDDEN
            hide_next = False
        elif name.startswith("-") and SECRET.search(name):
            yield f"{name}={HIDDEN}" if joined else word
            hide_next = not joined
        else:
            yield without_secrets(word)
            hide_next = False


def shown_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables; values of those named like secrets, and credentials in URLs, are hidden."""
    return {name: HIDDEN if SECRET.search(name) else without_secrets(value) for name, value in env.items()}
