"""Load settings from an environment, or report all problems in it at once.

Defines the base class of all daemons' settings. A token has several sources (`tokens.py`); all other settings come only
from the environment.
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
from llama_orch.telemetry.events.event import Event

NONE = "(none)"


@dataclass(frozen=True)
class Problem:
    """One unusable setting: the variable, its value, what is wrong, and how to fix it (`hint`)."""

    variable: str
    value: str | None
    problem: str
    hint: str

    def __str__(self) -> str:
        shown = self.variable if self.value is None else f"{self.variable}={self.value}"
        return f"{shown}: {self.problem}. {self.hint}"


class ConfigurationError(Exception):
    """The environment is unusable. `problems` lists all problems; `settings` has defaults for unusable variables."""

    def __init__(self, problems: list[Problem], settings: "Settings | None" = None) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
        self.settings = settings


class Settings(BaseModel):
    """Base of a daemon's settings: immutable, with a `Var` in each field's annotation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True, hide_input_in_errors=True
    )

    examples: ClassVar[tuple[Example, ...]] = ()
    """The examples of the configuration reference."""

    @property
    def profile(self) -> Literal["any", "home", "cloud"]:
        """The active profile; `any` for a daemon that is the same in both."""
        return "any"

    def without_effect(self, environ: Mapping[str, str]) -> list[str]:
        """Return the variables in `environ` that only the other profile uses, except those with the packaged value."""
        inert = {"home": "cloud", "cloud": "home", "any": None}[self.profile]
        others = (var for var in self.variables().values() if var.profile == inert)
        return [var.env for var in others if environ.get(var.env) not in (None, "", var.packaged)]

    @classmethod
    def variables(cls) -> dict[str, Var]:
        """Return the declaration of each field, in the order of the class."""
        found = {}
        for name, field in cls.model_fields.items():
            var = next(item for item in field.metadata if isinstance(item, Var))
            allowed = var.allowed or allowed_words((field.annotation, *field.metadata), var.unit)
            found[name] = replace(var, allowed=allowed)
        return found

    @classmethod
    def rules(cls) -> dict[str, Callable[[Self], Iterable[Problem]]]:
        """Return the methods marked as a `rule`, by name: the checks of several settings together."""
        methods = [item for base in reversed(cls.__mro__) for item in vars(base).items()]
        return {name: method for name, method in methods if getattr(method, "rule", False)}

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Load settings from `environ`. An empty value counts as unset.

        Raises ConfigurationError with all problems of single variables and of their combinations.
        """
        values, problems = cls._read(environ)
        settings, invalid = cls._validate(values)
        faulty = {problem.variable for problem in (*problems, *invalid)}
        problems += [cls._at_its_source(problem, environ) for problem in invalid]
        # an unusable token does not count as missing
        faulty |= {sources.variable for sources in cls._tokens().values() if sources.file in faulty}
        problems += [problem for problem in settings.conflicts() if problem.variable not in faulty]
        if problems:
            raise ConfigurationError(problems, settings)
        return settings

    @classmethod
    def _tokens(cls) -> dict[str, TokenSources]:
        """Return the sources of each token, by field."""
        return {
            name: TokenSources(var.env, var.file or "", var.credential)
            for name, var in cls.variables().items()
            if var.credential
        }

    @classmethod
    def _at_its_source(cls, problem: Problem, environ: Mapping[str, str]) -> Problem:
        """Attribute the problem of an unusable token to the credential or the file that holds it."""
        sources = next((found for found in cls._tokens().values() if found.variable == problem.variable), None)
        if sources is None or (source := sources.source(environ)) == "environment":
            return problem
        words = f"its token, {problem.value}, {problem.problem}"
        hint = f"{problem.hint.partition('. Example')[0]}, on one line. Example: openssl rand -hex 32 > FILE"
        if source == "file":
            return Problem(sources.file, environ[sources.file], words, hint)
        return Problem(f"credential {sources.credential}", None, words, hint)

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
        """Return the settings and the problems. Invalid fields have their default, to find conflicts as well."""
        try:
            return cls(**values), []
        except ValidationError as error:
            faulty = {str(each.location[0]): each for each in invalid_fields(error)}
        problems = [_problem(cls.variables()[name], values[name], found) for name, found in faulty.items()]
        return cls(**{name: value for name, value in values.items() if name not in faulty}), problems

    def conflicts(self) -> list[Problem]:
        return [problem for check in self.rules().values() for problem in check(self)]

    def remarks(self) -> Iterator[tuple[Event, Mapping[str, object]]]:
        """Yield events with their fields that are logged at the start although they are not problems."""
        yield from ()

    def in_force(self, name: str) -> tuple[str, object]:
        """Return the variable and the value in force for a field. Subclasses override it where these differ."""
        return self.variables()[name].env, getattr(self, name)

    def effective(self, environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """Yield variable, value and source of each setting for `--check-config`; secrets as fingerprints."""
        tokens = self._tokens()
        for name, var in self.variables().items():
            variable, value = self.in_force(name)
            source = "environment" if environ.get(variable) else "default"
            if isinstance(value, Secret) and name in tokens:
                source = tokens[name].source(environ)
            yield var.env, as_text(value), source if variable == var.env else variable


def as_text(value: object) -> str:
    """Return a setting's value as it is written in an environment."""
    if value is None:
        return NONE
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(var: Var, value: Any, found: InvalidField) -> Problem:
    wrong = "has an invalid form" if found.kind == "string_pattern_mismatch" else found.text
    shown = f"token_fp6={Secret(value).fingerprint}" if var.secret else str(value)
    example = "Example, in a shell" if "$(" in var.example else "Example"
    hint = f"Allowed: {var.allowed}. {example}: {var.env}={var.example}"
    if re.search(r"\$[({]", str(value)):
        hint += ". An environment file does not expand commands or variables: write the result."
    if re.search(r"\s#", str(value)):
        hint += ". A comment needs a line of its own; after a value it is part of the value."
    return Problem(var.env, shown, wrong, hint)


def _unreadable(sources: TokenSources, environ: Mapping[str, str], error: OSError) -> Problem:
    problem = f"cannot be read ({error.strerror or error}: {error.filename})"
    hint = "Make the file readable by the daemon, or unset the variable."
    variable = sources.file or sources.variable
    return Problem(variable, environ.get(variable), problem, hint)


def _empty(sources: TokenSources, environ: Mapping[str, str]) -> Problem:
    hint = "Write a token into it. Example: openssl rand -hex 32 > FILE"
    variable = sources.file or sources.variable
    return Problem(variable, environ.get(variable), "is empty", hint)
