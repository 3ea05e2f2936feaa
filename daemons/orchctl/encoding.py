"""What is sent to the queen is UTF-8; bytes of the command line that are none never get there."""

import json

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError


def is_text(text: str) -> bool:
    """Whether it was UTF-8 on the command line, and not bytes that Python has put aside as surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def as_json(body: object) -> bytes:
    """The body of a request. Raises CommandError where what is to be sent is no text."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        hint = "What is on the command line, or typed, must be UTF-8."
        raise CommandError("what is to be sent is not text", hint, ExitStatus.DATA) from error
