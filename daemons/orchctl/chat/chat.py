"""orchctl chat: a conversation with a model, turn by turn."""

import argparse

from llama_orch.service.exit import ExitStatus
from orchctl.chat.conversation import Conversation
from orchctl.chat.history import History
from orchctl.chat.input import ChatInput, lines
from orchctl.client import QueenClient
from orchctl.command import Commands, identifier, number
from orchctl.commands.models import offered
from orchctl.errors import CommandError
from orchctl.output import explain, note

BODY = ("max_tokens", "temperature", "top_p", "seed", "stop")
"""Options whose names are OpenAI's."""
HEADERS = {"x-session-id": "session", "x-priority": "priority", "x-deadline-ms": "deadline_ms"}
"""What OpenAI's requests have no place for, and its option."""


def add(commands: Commands) -> None:
    """Add the command `chat`."""
    command = commands.add("chat", chat, "talk with a model; a line of input is a turn")
    command.add_argument("--model", type=identifier, help="model to use (default: the first that is ready)")
    command.add_argument("--system", metavar="TEXT", help="what the model is told before all else")
    command.add_argument("--session", type=identifier, metavar="UUID", help="count the turns to this session")
    command.add_argument("--priority", choices=["interactive", "batch"])
    command.add_argument("--deadline-ms", type=int, metavar="MS", help="give an answer up after so many milliseconds")
    command.add_argument("--max-tokens", type=int, metavar="N", help="length of each answer at most, in tokens")
    command.add_argument("--temperature", type=number, metavar="X")
    command.add_argument("--top-p", type=number, metavar="X")
    command.add_argument("--seed", type=int, metavar="N", help="same seed, same text")
    command.add_argument("--stop", action="append", metavar="TEXT", help="end an answer at this text; repeatable")


async def chat(options: argparse.Namespace, queen: QueenClient) -> None:
    """Conversation until standard input ends or the person leaves. Raises CommandError, to a person only at the beginning."""
    heard = lines()
    talk = await _begin(options, queen, heard)
    while True:
        try:
            line = heard.next()
            if line is None or not await talk.turn(line):
                return
        except CommandError as failure:
            if not heard.typed:
                raise
            explain(failure)


async def _begin(options: argparse.Namespace, queen: QueenClient, heard: ChatInput) -> Conversation:
    model = options.model or await _first(queen)
    wanted = {name: value for name in BODY if (value := getattr(options, name)) is not None}
    headers = {name: str(value) for name, option in HEADERS.items() if (value := getattr(options, option)) is not None}
    if heard.typed:
        note(f"{model} answers; /help says what else can be said, Ctrl-D leaves")
    return Conversation(queen, model, History(options.system), wanted, headers, heard.typed, options.json)


async def _first(queen: QueenClient) -> str:
    for model in await offered(queen):
        return model.id
    raise CommandError("no model is served", "See orchctl pools.", ExitStatus.TEMPORARY)
