"""The declaration of an environment variable: everything but its type."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Le

Profile = Literal["any", "home", "cloud"]
Check = TypeVar("Check", bound=Callable[..., Any])


@dataclass(frozen=True)
class Var:
    """Metadata of one setting, in the field's `Annotated` type.

    - `env`: the name of the variable
    - `meaning`: one or two sentences, for the environment file and the manual page
    - `more`: further text for the manual page
    - `allowed`: the allowed values, if the type does not give them
    - `unit`: the unit of a number
    - `default`: the text of the default, if it is not the field's default value
    - `packaged`: the value that the packages' environment file sets
    - `required`: when the variable must be set
    - `addition`: whether it is missing in the user's configuration reference
    - `secret`: whether its value must never be shown
    - `credential`, `file`: other sources of a secret, in order of precedence: the systemd credential, and the variable
      that names a file
    """

    env: str
    meaning: str
    example: str
    allowed: str = ""
    more: str = ""
    unit: str = "a number"
    profile: Profile = "any"
    default: str | None = None
    packaged: str | None = None
    required: str | None = None
    addition: bool = False
    secret: bool = False
    credential: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Declared:
    """What programs that are not the daemon need to know of one of its variables (`declared.py`).

    `default` is the text of the default; the others are as in `Var`.
    """

    env: str
    default: str
    secret: bool = False
    credential: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Allowed:
    """The allowed values of a type in words, in the type's `Annotated`."""

    words: str


@dataclass(frozen=True)
class Example:
    """An example for the manual page: a title and the variables with their values."""

    title: str
    values: Mapping[str, str]


def allowed_words(annotations: Iterable[Any], unit: str) -> str:
    """Return the allowed values of a field with these annotations: its bounds, choices, or the type's `Allowed`."""
    parts = [part for annotation in annotations for part in _parts(annotation)]
    low = next((part.ge for part in parts if isinstance(part, Ge)), None)
    high = next((part.le for part in parts if isinstance(part, Le)), None)
    if low is not None and high is not None:
        return f"{unit} from {low} to {high}"
    if choices := [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]:
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    return next(part.words for part in parts if isinstance(part, Allowed))


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types and metadata in `annotation`, outermost first."""
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
        yield from _parts(annotation.__origin__)
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def rule(check: Check) -> Check:
    """Mark a method that yields the conflicts between settings. The manual page quotes its docstring."""
    check.__dict__["rule"] = True
    return check
