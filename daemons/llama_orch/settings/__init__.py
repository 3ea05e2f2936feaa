"""Settings: parsing, validation, `--check-config`, environment files and manual pages from one declaration each."""

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
