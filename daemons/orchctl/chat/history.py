"""A conversation as the model is told it: kept in memory only, and of the turns only those that were answered."""

import re
from dataclasses import dataclass, field

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError

COMMANDS = {
    "exit": "leave; so does Ctrl-D",
    "clear": "forget what was said",
    "model": "show which model answers, or have another one answer: /model NAME",
    "help": "show this",
}
"""What can be said to orchctl instead of to the model."""
COMMAND = re.compile(r"/([A-Za-z]+)(?:\s+(.*\S))?\s*", re.DOTALL)


@dataclass
class History:
    """What was said; `system` stands before all of it."""

    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)

    def asking(self, text: str) -> list[dict[str, str]]:
        """OpenAI's `messages` that ask `text`."""
        said = [("system", self.system)] if self.system else []
        for question, answer in self.turns:
            said += [("user", question), ("assistant", answer)]
        return [{"role": role, "content": words} for role, words in [*said, ("user", text)]]

    def answered(self, text: str, answer: str) -> None:
        """`answer` is what came, perhaps not to its end; a turn of which nothing came never was."""
        if answer:
            self.turns.append((text, answer))


@dataclass(frozen=True)
class SlashCommand:
    """One of COMMANDS, and what stands behind it."""

    name: str
    argument: str | None


def command_of(line: str) -> SlashCommand | None:
    """The command that `line` is; None where it is for the model. Raises CommandError for one that does not exist."""
    found = COMMAND.fullmatch(line)
    if found is None:
        return None
    if found[1] not in COMMANDS:
        hint = "See /help. What is not a command begins with a blank."
        raise CommandError(f"/{found[1]} is no command", hint, ExitStatus.DATA)
    return SlashCommand(found[1], found[2])


def help_text() -> str:
    """What can be said."""
    return "\n".join(f"/{name}: {words}" for name, words in COMMANDS.items())
