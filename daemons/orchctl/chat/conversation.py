"""A running conversation: handles lines of input, requests answers and prints them."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from orchctl.chat.answer import AnswerChunk, ChatAnswer, stream_answer
from orchctl.chat.queue_position import show_queue_position
from orchctl.chat.slash_commands import SlashCommand, help_text, parse_slash_command
from orchctl.client import QueenClient
from orchctl.commands.models import fetch_models
from orchctl.errors import CommandError
from orchctl.nurseries import background
from orchctl.output import StatusLine, print_note, write, write_json


@dataclass
class History:
    """The turns that were answered and the system message, kept in memory and sent with each request."""

    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)

    def messages(self, text: str) -> list[dict[str, str]]:
        """Return OpenAI's `messages` for the next turn `text`."""
        messages = [("system", self.system)] if self.system else []
        for question, answer in self.turns:
            messages += [("user", question), ("assistant", answer)]
        return [{"role": role, "content": content} for role, content in [*messages, ("user", text)]]

    def add_turn(self, text: str, answer: str) -> None:
        """Add a turn. The answer may be incomplete; a turn without any answer is dropped."""
        if answer:
            self.turns.append((text, answer))


@dataclass
class Conversation:
    """A conversation with `model`; `fields` and `headers` are sent with each request.

    If it is `interactive`, Ctrl-C cancels only the current answer.
    """

    queen: QueenClient
    model: str
    history: History
    fields: Mapping[str, object]
    headers: Mapping[str, str]
    interactive: bool
    as_json: bool
    line: StatusLine = field(default_factory=StatusLine)

    async def handle_line(self, line: str) -> bool:
        """Run a slash command or request an answer; return False if the user leaves. Raises CommandError."""
        if command := parse_slash_command(line):
            return await self._run_slash_command(command)
        if line.strip():
            await self.run_turn(line.strip())
        return True

    async def _run_slash_command(self, command: SlashCommand) -> bool:
        if command.name == "help":
            print_note(help_text())
        elif command.name == "clear":
            self.history.turns.clear()
        elif command.name == "model" and command.argument:
            self.model = command.argument
        elif command.name == "model":
            names = ", ".join(model.id for model in await fetch_models(self.queen))
            print_note(f"model {self.model}; available: {names or 'none'}")
        return command.name != "exit"

    async def run_turn(self, text: str) -> None:
        """Request an answer to `text` and print it. The part received is kept in the history, however the turn ends."""
        answer = ChatAnswer()
        try:
            await self._stream(text, answer)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self._end_interrupted_line(answer)
        except CommandError as error:
            if self.as_json:
                write_json(_error_document(error))
            raise
        finally:
            self.history.add_turn(text, answer.text)
            self._end_output(answer)
        if self.as_json:
            write_json(answer.document())

    async def _stream(self, text: str, answer: ChatAnswer) -> None:
        body = {"model": self.model, "messages": self.history.messages(text), **self.fields}
        request_id = str(uuid4())
        async with background(show_queue_position, self.queen, request_id, self.line, lambda: not answer.parts):
            headers = {**self.headers, "x-correlation-id": request_id}
            await stream_answer(self.queen, body, headers, partial(self._print_chunk, answer))

    def _print_chunk(self, answer: ChatAnswer, chunk: AnswerChunk) -> None:
        text = answer.add(chunk)
        if not text and chunk.has_reasoning:
            self.line.show("thinking")
        elif text and not self.as_json:
            self.line.clear()
            write(text)

    def _end_interrupted_line(self, answer: ChatAnswer) -> None:
        """End the line on which the terminal has echoed ^C, unless _end_output() will."""
        if self.as_json or not answer.text:
            print(file=sys.stderr)

    def _end_output(self, answer: ChatAnswer) -> None:
        self.line.clear()
        if not self.as_json and answer.text and not answer.text.endswith("\n"):
            write("\n")


def _error_document(error: CommandError) -> object:
    """Return the queen's own error, or another one in the same format."""
    if error.document:
        return json.loads(error.document)
    return {"error": {"message": error.message, "type": "connection_error", "code": None}}
