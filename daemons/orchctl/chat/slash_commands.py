"""The commands of a chat, such as /clear, which are lines that start with a slash and a word."""

import re
from dataclasses import dataclass

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError

SLASH_COMMANDS = {
    "exit": "leave, as does Ctrl-D",
    "clear": "clear the conversation's history",
    "model": "show the model in use and those available; /model NAME switches",
    "help": "show this list",
}
PATTERN = re.compile(r"/([A-Za-z]+)(?:\s+(.*\S))?\s*", re.DOTALL)


@dataclass(frozen=True)
class SlashCommand:
    name: str
    argument: str | None


def parse_slash_command(line: str) -> SlashCommand | None:
    """Return None if `line` is for the model. Raises CommandError for an unknown command."""
    match = PATTERN.fullmatch(line)
    if match is None:
        return None
    if match[1] not in SLASH_COMMANDS:
        hint = "/help lists the commands. To send a line that starts with a slash to the model, put a space first."
        raise CommandError(f"unknown command: /{match[1]}", hint, ExitStatus.DATA)
    return SlashCommand(match[1], match[2])


def help_text() -> str:
    return "\n".join(f"/{name}: {meaning}" for name, meaning in SLASH_COMMANDS.items())
