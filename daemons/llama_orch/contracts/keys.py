"""Keys of users: one table of keys.toml, and what the queen reports of the use of each key."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound

USAGE_PATH = "/v2/usage"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
MOST_NUMBER = 1_000_000_000_000

KeyEndpoint = Literal["chat", "completions", "embeddings", "rerank", "messages", "responses", "ollama", "tasks"]
"""What a key may be used for. Names of models, and the use of the key itself, are open to every key."""

KeyName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Count = Annotated[int, Field(ge=1, le=MOST_NUMBER)]


def _aware(value: datetime | date) -> datetime:
    """Return the moment; a date means its beginning, and UTC is meant where no offset is given."""
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class KeySpec(Inbound):
    """One table [[keys]]. The secret itself is in no file: `sha256` is its digest, as 64 hex digits.

    A random secret of 256 bits needs no slow hash. Limits that are None do not exist. `models` are names as in
    /v1/models, with * for any characters; None allows all, as does None for `endpoints`.
    """

    name: KeyName
    sha256: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
    models: Annotated[tuple[ModelName, ...], Field(max_length=100)] | None = None
    endpoints: Annotated[tuple[KeyEndpoint, ...], Field(max_length=20)] | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_day: Count | None = None
    tokens_total: Count | None = None
    expires: Annotated[datetime | date, AfterValidator(_aware)] | None = None

    @property
    def ends(self) -> datetime | None:
        """When the key expires."""
        return self.expires if isinstance(self.expires, datetime) else None


class KeysFile(Inbound):
    """The whole of keys.toml."""

    keys: Annotated[tuple[KeySpec, ...], Field(max_length=1000)] = ()


class KeyView(Outbound):
    """A key as orchctl key list shows it: all but the digest. Without a value, there is no such limit."""

    name: str
    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    priority: str = "interactive"
    weight: int = 1
    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_total: int | None = None
    expires: datetime | None = None


class KeyList(Outbound):
    """The keys of a file."""

    keys: list[KeyView]


class KeyUsage(Outbound):
    """The use of one key. Tokens are those of prompts and answers; `*_today` counts since midnight, UTC.

    `requests` are those that were admitted, `refused` those above a limit. `waiting_or_running` are open now.
    """

    key: str
    requests: int = 0
    refused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_today: int = 0
    waiting_or_running: int = 0
    weight: int = 1
    tokens_per_day: int | None = None
    tokens_total: int | None = None
    expires: datetime | None = None


class UsageList(Outbound):
    """The answer to GET /v2/usage: all keys of the file, or, to a key, its own use."""

    keys: list[KeyUsage]
