"""What is declared about an environment variable besides its type: the words a person needs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Le

Profile = Literal["any", "home", "cloud"]
Check = TypeVar("Check", bound=Callable[..., Any])


@dataclass(frozen=True)
class Var:
    """Metadata of one setting, put into the field's `Annotated` type.

    `env` is the variable's name, `meaning` one or two sentences, `more` what only the manual page adds to them,
    `allowed` what a value may be where the type does not say it, `unit` what a number counts, `default` how the
    default reads where it is not simply the field's own, `packaged` the value that the packages' environment file
    sets, `required` when it must be set, `addition` whether it is no part of the user's configuration reference,
    `secret` whether its value must never be shown; `credential` and `file` are where a secret may come from
    besides: the systemd credential and the variable that names a file, in the order in which they count.
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
class Allowed:
    """What the values of a type may be, in words; put into the type's own `Annotated`."""

    words: str


@dataclass(frozen=True)
class Example:
    """A set-up as the manual shows it: what it is for, and the variables with their values."""

    title: str
    values: Mapping[str, str]


def allowed_words(annotations: Iterable[Any], unit: str) -> str:
    """What a field with this type and metadata may be, said by them: its bounds, its choices, or the type's words."""
    parts = [part for annotation in annotations for part in _parts(annotation)]
    low = next((part.ge for part in parts if isinstance(part, Ge)), None)
    high = next((part.le for part in parts if isinstance(part, Le)), None)
    if low is not None and high is not None:
        return f"{unit} from {low} to {high}"
    if choices := [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]:
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    return next(part.words for part in parts if isinstance(part, Allowed))


def _parts(annotation: Any) -> Iterator[Any]:
    """The types and the metadata that `annotation` is made of, the outermost first."""
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
        yield from _parts(annotation.__origin__)
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def rule(check: Check) -> Check:
    """Marks a method of settings that yields the problems of variables which are right by themselves and wrong
    together; its docstring is what the manual says about it."""
    check.__dict__["rule"] = True
    return check
