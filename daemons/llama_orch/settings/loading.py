"""From an environment to frozen settings, or to every problem in it at once.

Owns the base class of each daemon's settings. A token has several sources (`tokens.py`); everything else comes from the
environment alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from llama_orch.contracts.validation import InvalidField, invalid_fields
from llama_orch.settings.declaration import Example, Var, allowed_words
from llama_orch.settings.tokens import TokenSources
from llama_orch.settings.types import Secret
from llama_orch.telemetry.events import Event

NONE = "(none)"


@dataclass(frozen=True)
class Problem:
    """One setting that cannot be used: which, what it holds, what is wrong, what would do."""

    variable: str
    value: str | None
    problem: str
    mend: str

    def __str__(self) -> str:
        shown = self.variable if self.value is None else f"{self.variable}={self.value}"
        return f"{shown}: {self.problem}. {self.mend}"


class ConfigurationError(Exception):
    """The environment cannot be used; `problems` names everything that is wrong with it. `settings` is what can be
    used, with defaults in the place of the rest."""

    def __init__(self, problems: list[Problem], settings: "Settings | None" = None) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
        self.settings = settings


class Settings(BaseModel):
    """Base of a daemon's settings: immutable, one `Var` in each field's annotation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True, hide_input_in_errors=True
    )

    examples: ClassVar[tuple[Example, ...]] = ()
    """Those of the configuration reference."""

    @property
    def profile(self) -> Literal["any", "home", "cloud"]:
        """The profile in force; `any` for a daemon to which profiles are all the same."""
        return "any"

    def without_effect(self, environ: Mapping[str, str]) -> list[str]:
        """The variables that are set in `environ` and belong to the other profile; what the packages set there for
        either profile is no news to anybody."""
        inert = {"home": "cloud", "cloud": "home", "any": None}[self.profile]
        others = (var for var in self.variables().values() if var.profile == inert)
        return [var.env for var in others if environ.get(var.env) not in (None, "", var.packaged)]

    @classmethod
    def variables(cls) -> dict[str, Var]:
        """Each field's declaration, in the order of the class."""
        found = {}
        for name, field in cls.model_fields.items():
            var = next(item for item in field.metadata if isinstance(item, Var))
            said = var.allowed or allowed_words((field.annotation, *field.metadata), var.unit)
            found[name] = replace(var, allowed=said)
        return found

    @classmethod
    def rules(cls) -> dict[str, Callable[[Self], Iterable[Problem]]]:
        """What is checked of several settings together: the methods that are marked as a `rule`, by name."""
        methods = [item for base in reversed(cls.__mro__) for item in vars(base).items()]
        return {name: method for name, method in methods if getattr(method, "rule", False)}

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Settings from `environ`, where an empty value counts as not set.

        Raises ConfigurationError with all problems of single variables and of their combination.
        """
        values, problems = cls._read(environ)
        settings, invalid = cls._validate(values)
        faulty = {problem.variable for problem in (*problems, *invalid)}
        problems += [cls._at_its_source(problem, environ) for problem in invalid]
        # a token that cannot be used is not a missing one
        faulty |= {sources.variable for sources in cls._tokens().values() if sources.file in faulty}
        problems += [problem for problem in settings.conflicts() if problem.variable not in faulty]
        if problems:
            raise ConfigurationError(problems, settings)
        return settings

    @classmethod
    def _tokens(cls) -> dict[str, TokenSources]:
        """Where each field that is a token has its value from."""
        return {
            name: TokenSources(var.env, var.file, var.credential)
            for name, var in cls.variables().items()
            if var.file and var.credential
        }

    @classmethod
    def _at_its_source(cls, problem: Problem, environ: Mapping[str, str]) -> Problem:
        """A token that cannot be used as the problem of the credential or the file that holds it."""
        sources = next((found for found in cls._tokens().values() if found.variable == problem.variable), None)
        if sources is None or (source := sources.source(environ)) == "environment":
            return problem
        words = f"{problem.value} in it {problem.problem}"
        mend = f"{problem.mend.partition('. Example')[0]}, in one line. As in: openssl rand -hex 32 > FILE"
        if source == "file":
            return Problem(sources.file, environ[sources.file], words, mend)
        return Problem(f"the credential {sources.credential}", None, words, mend)

    @classmethod
    def _read(cls, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
        tokens, problems = cls._tokens(), []
        values: dict[str, Any] = {}
        for name, var in cls.variables().items():
            try:
                value = tokens[name].read(environ) if name in tokens else environ.get(var.env)
            except OSError as error:
                value = None
                problems.append(_unreadable(tokens[name], environ, error))
            if value == "" and name in tokens:
                problems.append(_empty(tokens[name], environ))
            if value:
                values[name] = value
        return values, problems

    @classmethod
    def _validate(cls, values: dict[str, Any]) -> tuple[Self, list[Problem]]:
        """The settings and what was wrong; a faulty field has its default, so that conflicts show too."""
        try:
            return cls(**values), []
        except ValidationError as error:
            faulty = {str(each.location[0]): each for each in invalid_fields(error)}
        problems = [_problem(cls.variables()[name], values[name], found) for name, found in faulty.items()]
        return cls(**{name: value for name, value in values.items() if name not in faulty}), problems

    def conflicts(self) -> list[Problem]:
        """Problems of several settings together."""
        return [problem for check in self.rules().values() for problem in check(self)]

    def remarks(self) -> Iterator[tuple[Event, Mapping[str, object]]]:
        """What is worth a line at the start though it is no problem: events with their fields."""
        yield from ()

    def in_force(self, name: str) -> tuple[str, object]:
        """The variable and the value that count for the field `name`; a daemon's class says where these are others."""
        return self.variables()[name].env, getattr(self, name)

    def effective(self, environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """(variable, value as text, source) of each setting, for `--check-config`; secrets as fingerprints."""
        tokens = self._tokens()
        for name, var in self.variables().items():
            variable, value = self.in_force(name)
            source = "environment" if environ.get(variable) else "default"
            if isinstance(value, Secret) and name in tokens:
                source = tokens[name].source(environ)
            yield var.env, as_text(value), source if variable == var.env else variable


def as_text(value: object) -> str:
    """A setting's value as it is written in an environment."""
    if value is None:
        return NONE
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(var: Var, value: Any, found: InvalidField) -> Problem:
    wrong = "has an invalid form" if found.kind == "string_pattern_mismatch" else found.text
    shown = f"token_fp6={Secret(value).fingerprint}" if var.secret else str(value)
    example = "Example, in a shell" if "$(" in var.example else "Example"
    mend = f"Allowed: {var.allowed}. {example}: {var.env}={var.example}"
    if re.search(r"\$[({]", str(value)):
        mend += ". In an environment file neither commands nor variables are replaced: write what they give."
    if re.search(r"\s#", str(value)):
        mend += ". A comment has a line of its own; behind a value it is a part of it."
    return Problem(var.env, shown, wrong, mend)


def _unreadable(sources: TokenSources, environ: Mapping[str, str], error: OSError) -> Problem:
    problem = f"cannot be read ({error.strerror or error}: {error.filename})"
    mend = "Make the file readable for the daemon, or unset the variable."
    return Problem(sources.file, environ.get(sources.file), problem, mend)


def _empty(sources: TokenSources, environ: Mapping[str, str]) -> Problem:
    mend = "Write a token into it, as in: openssl rand -hex 32 > FILE"
    return Problem(sources.file, environ.get(sources.file), "is empty", mend)
