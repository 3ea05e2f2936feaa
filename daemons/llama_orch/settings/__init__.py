"""One declaration per setting; parsing, checks, `--check-config`, env files and manual pages come from it."""

from llama_orch.settings.declaration import Example, Var, rule
from llama_orch.settings.loading import ConfigurationError, Problem, Settings
from llama_orch.settings.types import Address, Flag, LogLevels, Token, Whole

__all__ = [
    "Address",
    "ConfigurationError",
    "Example",
    "Flag",
    "LogLevels",
    "Problem",
    "Settings",
    "Token",
    "Var",
    "Whole",
    "rule",
]
