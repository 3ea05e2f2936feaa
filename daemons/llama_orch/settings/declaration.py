"""What is declared about an environment variable besides its type: the words a person needs."""

from dataclasses import dataclass
from typing import Literal

Profile = Literal["any", "home", "cloud"]


@dataclass(frozen=True)
class Var:
    """Metadata of one setting, put into the field's `Annotated` type.

    `env` is the variable's name, `meaning` one or two sentences for the manual page, `allowed` what a value
    may be, as shown in errors, `default` how the default reads where it is not simply the field's own,
    `packaged` the value that the packages' environment file sets, `required` when it must be set, `addition`
    whether it is no part of the user's configuration reference, `secret` whether its value must never be shown.
    """

    env: str
    meaning: str
    example: str
    allowed: str
    profile: Profile = "any"
    default: str | None = None
    packaged: str | None = None
    required: str | None = None
    addition: bool = False
    secret: bool = False
