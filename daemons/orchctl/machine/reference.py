"""References of models, as users type them."""

from pathlib import Path

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError

SCHEMES = ("file:", "https://", "http://", "hf:", "s3://", "oci://")


def is_reference(text: str) -> bool:
    """Whether `text` is a reference or the path of a model file, rather than a name."""
    return text.startswith(SCHEMES) or text.endswith(".gguf") or text.startswith(("/", "./", "../", "~"))


def model_reference(text: str) -> str:
    """Return the reference for what the user typed. Raises CommandError for a file that does not exist."""
    if text.startswith(SCHEMES) and not text.startswith("file:"):
        return text
    path = Path(text.removeprefix("file:")).expanduser().absolute()
    if not path.is_file():
        hint = f"Give the path of a .gguf file, or a reference that begins with {', '.join(SCHEMES)}."
        raise CommandError(f"there is no model file {path}", hint, ExitStatus.NO_INPUT)
    return f"file:{path}"
