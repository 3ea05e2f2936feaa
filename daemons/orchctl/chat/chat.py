"""orchctl chat: a conversation with a model; each line of input is a turn."""

import argparse

from llama_orch.service.exit import ExitStatus
from orchctl.chat.conversation import Conversation, History
from orchctl.chat.input import ChatInput, open_input
from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument, finite_number, identifier
from orchctl.commands.models import MODEL_NAMES, fetch_models
from orchctl.commands.sessions import SESSION_IDS
from orchctl.errors import CommandError
from orchctl.output import print_error, print_note

BODY_FIELDS = ("max_tokens", "temperature", "top_p", "seed", "stop")
"""Options that are sent as the field of the same name."""
WELCOME = "model {}; /help lists the commands, Ctrl-D leaves"
HEADER_OPTIONS = {"x-session-id": "session", "x-priority": "priority", "x-deadline-ms": "deadline_ms"}
"""Headers for what OpenAI's requests have no field for, and the options that set them."""


async def chat(options: argparse.Namespace, queen: QueenClient) -> None:
    """Run turns until the input ends or the user leaves.

    Raises CommandError. At a terminal, an error of a turn is printed instead and the conversation continues.
    """
    lines = open_input()
    await _converse(await _start(options, queen, lines), lines)


async def _converse(conversation: Conversation, lines: ChatInput) -> None:
    while True:
        try:
            line = lines.next()
            if line is None or not await conversation.handle_line(line):
                return
        except CommandError as error:
            if not lines.interactive:
                raise
            print_error(error)


async def converse(options: argparse.Namespace, queen: QueenClient, model: str, prompt: str | None) -> None:
    """Answer `prompt`, or chat with `model` if there is none. Raises CommandError."""
    fields = {} if options.max_tokens is None else {"max_tokens": options.max_tokens}
    if prompt is not None:
        await Conversation(queen, model, History(options.system), fields, {}, False, options.json).run_turn(prompt)
        return
    lines = open_input()
    if lines.interactive:
        print_note(WELCOME.format(model))
    await _converse(
        Conversation(queen, model, History(options.system), fields, {}, lines.interactive, options.json), lines
    )


async def _start(options: argparse.Namespace, queen: QueenClient, lines: ChatInput) -> Conversation:
    model = options.model or await _default_model(queen)
    fields = {name: value for name in BODY_FIELDS if (value := getattr(options, name)) is not None}
    headers = {
        name: str(value) for name, option in HEADER_OPTIONS.items() if (value := getattr(options, option)) is not None
    }
    if lines.interactive:
        print_note(WELCOME.format(model))
    return Conversation(queen, model, History(options.system), fields, headers, lines.interactive, options.json)


async def _default_model(queen: QueenClient) -> str:
    for model in await fetch_models(queen):
        return model.id
    raise CommandError("no models are served", "See orchctl pools.", ExitStatus.TEMPORARY)


CHAT = CliCommand(
    "chat",
    "talk to a model; each line of input is a turn",
    chat,
    [
        argument(
            "--model", type=identifier, help="model to use (default: the first that is ready)", completion=MODEL_NAMES
        ),
        argument("--system", metavar="TEXT", help="system message at the start of the conversation"),
        argument(
            "--session",
            type=identifier,
            metavar="UUID",
            help="session that the turns belong to",
            completion=SESSION_IDS,
        ),
        argument("--priority", choices=["interactive", "batch"]),
        argument("--deadline-ms", type=int, metavar="MS", help="time limit of each answer, including queueing"),
        argument("--max-tokens", type=int, metavar="N", help="maximum length of each answer, in tokens"),
        argument("--temperature", type=finite_number, metavar="X"),
        argument("--top-p", type=finite_number, metavar="X"),
        argument("--seed", type=int, metavar="N", help="seed of the sampling: the same seed gives the same text"),
        argument("--stop", action="append", metavar="TEXT", help="stop an answer at this text; repeatable"),
    ],
)
