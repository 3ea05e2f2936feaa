"""The counts of keys across restarts: a small JSON file in the state directory, replaced when counts have changed.

A crash loses the counts of the last SAVE_INTERVAL_S seconds.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import trio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llama_orch.files import durable
from queen_rbee.keys.account import Totals
from queen_rbee.keys.keyring import Keyring

NAME = "key-usage.json"
SAVE_INTERVAL_S = 10.0
MODE = 0o640

log = logging.getLogger(__name__)


class _Totals(BaseModel):
    model_config = ConfigDict(extra="ignore")

    requests: int = Field(0, ge=0)
    refused: int = Field(0, ge=0)
    tokens_in: int = Field(0, ge=0)
    tokens_out: int = Field(0, ge=0)
    day: int = Field(0, ge=0)
    tokens_today: int = Field(0, ge=0)


class _UsageFile(BaseModel):
    keys: dict[str, _Totals] = {}


class UsageFile:
    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._saved: Mapping[str, Totals] = {}

    async def load(self) -> Mapping[str, Totals]:
        """Return the counts; none if there is no file, or an unreadable one, which is logged."""
        try:
            raw = await trio.Path(self._path).read_bytes()
            found = _UsageFile.model_validate_json(raw)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not such a file"
            log.error("the use of keys before this start is not counted: cannot read %s: %s", self._path, reason)
            return {}
        self._saved = {name: Totals(**each.model_dump()) for name, each in found.keys.items()}
        return self._saved

    async def keep(self, keyring: Keyring) -> None:
        """Save every SAVE_INTERVAL_S seconds what has changed, until cancelled."""
        while True:
            await trio.sleep(SAVE_INTERVAL_S)
            await self.save(keyring)

    async def save(self, keyring: Keyring) -> None:
        """Save the counts if they have changed. A failure is logged; the next save repeats it."""
        totals = keyring.totals()
        if totals == self._saved:
            return
        file = _UsageFile(keys={name: _Totals(**asdict(each)) for name, each in totals.items()})
        try:
            await trio.to_thread.run_sync(durable.replace, self._path, file.model_dump_json().encode(), MODE)
        except OSError as error:
            log.error("cannot save the use of keys in %s: %s", self._path, error.strerror)
            return
        self._saved = totals
