"""The training text of the demo model: manual pages, docstrings and Markdown files of this project."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = re.compile(r"[A-Z][^.?!]{20,240}[.?!](?=\s|$)")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|[.,;:?!]")


def sentences() -> list[list[str]]:
    """Return all sentences, each as a list of words and punctuation marks."""
    text = " ".join(" ".join(part.split()) for part in _texts())
    found = [WORD.findall(sentence) for sentence in SENTENCE.findall(text)]
    return [words for words in found if len(words) > 4]


def _texts() -> Iterator[str]:
    yield from (_plain(path.read_text()) for path in sorted(ROOT.glob("*.md")))
    yield from (_manual(path.read_text()) for path in sorted((ROOT / "man").glob("*.[1578]")))
    for path in sorted((ROOT / "daemons").rglob("*.py")):
        yield from _docstrings(ast.parse(path.read_text()))


def _docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield _plain(ast.get_docstring(node) or "")


def _plain(text: str) -> str:
    """Remove markup and code from Markdown."""
    return re.sub(r"```.*?```|`[^`]*[^\w\s.`-][^`]*`|[`*_#|>]", " ", text, flags=re.DOTALL)


def _manual(text: str) -> str:
    """Remove requests and escapes from a manual page."""
    lines = [line for line in text.splitlines() if not line.startswith((".", "'"))]
    return re.sub(r"\\f.|\\&|\\", "", "\n".join(lines))
