"""Settings: parsing, validation, `--check-config`, environment files and manual pages from one declaration each."""

from llama_orch.settings.declaration import Example, Var, rule
from llama_orch.settings.loading import ConfigurationError, Problem, Settings
from llama_orch.settings.types import Address, Flag, Integer, LogLevels, Token

__all__ = [
    "Address",
    "ConfigurationError",
    "Example",
    "Flag",
    "Integer",
    "LogLevels",
    "Problem",
    "Settings",
    "Token",
    "Var",
    "rule",
]
