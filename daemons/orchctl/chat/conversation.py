"""A conversation under way: what is said to it, what answers, and what is shown of the answer."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from orchctl.chat.answer import AnswerChunk, ChatAnswer, stream
from orchctl.chat.history import History, SlashCommand, command_of, help_text
from orchctl.client import QueenClient
from orchctl.commands.models import offered
from orchctl.errors import CommandError
from orchctl.output import StatusLine, emit, emit_json, note
from orchctl.waiting import meanwhile, tell_place


@dataclass
class Conversation:
    """A conversation with `model`; `wanted` and `headers` go with each request.

    `typed` is whether a person talks, who may interrupt one answer and go on.
    """

    queen: QueenClient
    model: str
    conversation: History
    wanted: Mapping[str, object]
    headers: Mapping[str, str]
    typed: bool
    as_json: bool
    line: StatusLine = field(default_factory=StatusLine)

    async def turn(self, line: str) -> bool:
        """Do what `line` says or have it answered; False where it says to leave. Raises CommandError."""
        if command := command_of(line):
            return await self._obey(command)
        if line.strip():
            await self._say(line.strip())
        return True

    async def _obey(self, command: SlashCommand) -> bool:
        if command.name == "help":
            note(help_text())
        elif command.name == "clear":
            self.conversation.turns.clear()
        elif command.name == "model" and command.argument:
            self.model = command.argument
        elif command.name == "model":
            names = ", ".join(model.id for model in await offered(self.queen))
            note(f"{self.model} answers; there are {names or 'none'}")
        return command.name != "exit"

    async def _say(self, text: str) -> None:
        """Have `text` answered. What has come of the answer is kept, whatever ends it."""
        answer = ChatAnswer()
        try:
            await self._answer(text, answer)
        except KeyboardInterrupt:
            if not self.typed:
                raise
            self._interrupted(answer)
        except CommandError as failure:
            if self.as_json:
                emit_json(_document(failure))
            raise
        finally:
            self.conversation.answered(text, answer.text)
            self._end(answer)
        if self.as_json:
            emit_json(answer.document())

    async def _answer(self, text: str, answer: ChatAnswer) -> None:
        body = {"model": self.model, "messages": self.conversation.asking(text), **self.wanted}
        request_id = str(uuid4())
        async with meanwhile(tell_place, self.queen, request_id, self.line, lambda: not answer.parts):
            headers = {**self.headers, "x-correlation-id": request_id}
            await stream(self.queen, body, headers, partial(self._show, answer))

    def _show(self, answer: ChatAnswer, chunk: AnswerChunk) -> None:
        text = answer.take(chunk)
        if not text and chunk.thinks:
            self.line.show("thinking")
        elif text and not self.as_json:
            self.line.clear()
            emit(text)

    def _interrupted(self, answer: ChatAnswer) -> None:
        """The terminal has written ^C; `_end` sees to a new line behind an answer, but not where there is none."""
        if self.as_json or not answer.text:
            print(file=sys.stderr)

    def _end(self, answer: ChatAnswer) -> None:
        self.line.clear()
        if not self.as_json and answer.text and not answer.text.endswith("\n"):
            emit("\n")


def _document(failure: CommandError) -> object:
    """The queen's own words about a failure, or ours in the same shape."""
    if failure.document:
        return json.loads(failure.document)
    return {"error": {"message": failure.message, "type": "connection_error", "code": None}}
