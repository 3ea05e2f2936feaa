"""The models of the pools file, documented in llama-orch-pools(5).

Validation is strict: for example, a quoted number is an error.
"""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, StringConstraints

from engine_provisioner.modes.mode import ProvisioningMode
from engine_provisioner.modes.registry import MODES
from engine_provisioner.sources.registry import check_reference
from llama_orch.contracts.base import Inbound, PoolId
from llama_orch.contracts.engines import EngineKind, Workload
from llama_orch.contracts.keep_alive import EXPECTED, keep_alive_s

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

OWNED_FLAGS = {
    "-m": "use the key model",
    "--model": "use the key model",
    "-hf": "use the key model",
    "--hf-repo": "use the key model",
    "-mu": "use the key model",
    "--model-url": "use the key model",
    "--host": "engines listen on 127.0.0.1 only",
    "--port": "use the key ports",
    "-c": "use the key ctx",
    "--ctx-size": "use the key ctx",
    "-np": "use the key slots",
    "--parallel": "use the key slots",
    "-dev": "use the key devices",
    "--device": "use the key devices",
    "-ts": "use the key tensor_split",
    "--tensor-split": "use the key tensor_split",
    "--reuse-port": "each engine has its own port",
    "--no-slots": "pool-managerd reads /slots",
    "--api-key": "a command line is not secret, and the engine is on loopback",
    "--api-key-file": "the daemons send no key to the engine",
}
"""Flags that the daemon sets, and what to do instead."""

ON_DEMAND_KEEP_ALIVE_S = 300.0

Item = TypeVar("Item", int, str)

OWNED_ENV = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


class Table(Inbound):
    """Base of the tables: frozen, strict, without unknown keys."""

    model_config = ConfigDict(strict=True)


def _one_line(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must be one line without control characters")
    return value


def _flag(value: str) -> str:
    name = _one_line(value).partition("=")[0]
    if name in OWNED_FLAGS:
        raise ValueError(f"{name} is set by the daemon: {OWNED_FLAGS[name]}")
    return value


def _environment(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not ENV_NAME.fullmatch(name):
            raise ValueError(f"invalid variable name {name!r} (allowed: letters, digits, underscore)")
        if name in OWNED_ENV:
            raise ValueError(f"{name} is set by the daemon: use the key devices")
        _one_line(text)
    return value


def _reference(value: str) -> str:
    return check_reference(_one_line(value))


def _devices(value: Any) -> Any:
    if value == "cpu":
        return []
    if value == [] or isinstance(value, str):
        raise ValueError('must be a list of GPU indices, such as [0], or "cpu"')
    return value


def _distinct(value: list[Item]) -> list[Item]:
    if len(set(value)) != len(value):
        raise ValueError("contains a value twice")
    return value


def _keep_alive(value: Any) -> float:
    """Return the seconds of a duration: infinity for -1."""
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError(EXPECTED)
    seconds = keep_alive_s(value)
    return math.inf if seconds is None else seconds


Flag = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_flag)]
Reference = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_reference)]
Checksum = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Device = Annotated[int, Field(ge=0, le=255)]
KeepAlive = Annotated[float, BeforeValidator(_keep_alive, json_schema_input_type=int | str)]


class Timeouts(Table):
    """Limits in milliseconds. `wall_ms`: from the engine's start until it is healthy. `idle_ms`: how long a download
    may receive nothing."""

    wall_ms: Annotated[int, Field(ge=1000, le=86_400_000)] = 600_000
    idle_ms: Annotated[int, Field(ge=1000, le=3_600_000)] = 60_000


class Model(Table):
    """A model and where to get it. `checksum` is verified before the engine starts."""

    ref: Reference
    checksum: Checksum | None = None
    cache_dir: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f]*$")] | None = None


if TYPE_CHECKING:
    Provisioning = ProvisioningMode
else:
    Provisioning = Annotated[Union[tuple(MODES)], Field(discriminator="mode")]  # noqa: UP007 -- computed


def _model(value: Any) -> Any:
    return {"ref": value} if isinstance(value, str) else value


Devices = Annotated[
    list[Device],
    BeforeValidator(_devices, json_schema_input_type=Annotated[list[Device], Field(min_length=1)] | Literal["cpu"]),
    AfterValidator(_distinct),
]
"""Indices of GPUs. An empty list, written as "cpu", is the CPU."""


class Group(Table):
    """Pools that are never loaded at the same time (`exclusive`), or are loaded and unloaded together."""

    mode: Literal["exclusive", "together"]


class Pool(Table):
    """A pool: an engine, its model, and the devices it runs on. `ctx` is the context per slot in tokens."""

    id: PoolId
    engine: EngineKind = "llamacpp"
    model: Annotated[Model | None, BeforeValidator(_model, json_schema_input_type=str | Model | None)] = None
    devices: (
        Annotated[
            list[Device],
            BeforeValidator(
                _devices, json_schema_input_type=Annotated[list[Device], Field(min_length=1)] | Literal["cpu"]
            ),
            AfterValidator(_distinct),
        ]
        | None
    ) = None
    ctx: Annotated[int, Field(ge=16, le=16_777_216)] = 4096
    slots: Annotated[int, Field(ge=1, le=256)] = 1
    preload: bool = True
    keep_alive: KeepAlive | None = None
    pinned: bool = False
    group: PoolId | None = None
    workloads: Annotated[list[Workload], Field(min_length=1), AfterValidator(_distinct)] | None = None
    flags: Annotated[list[Flag], Field(max_length=200)] = []
    env: Annotated[dict[str, str], AfterValidator(_environment)] = {}
    ports: Annotated[list[Port], Field(max_length=1)] = []
    tensor_split: list[Annotated[float, Field(ge=0)]] = []
    quant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,32}$")] | None = None
    timeouts: Timeouts = Timeouts()
    provisioning: Provisioning

    _exclusive: bool = PrivateAttr(default=False)

    @property
    def keep_alive_s(self) -> float | None:
        """How long the pool stays loaded without work, in seconds; None: forever."""
        if self.keep_alive is None:
            return None if self.preload else ON_DEMAND_KEEP_ALIVE_S
        return self.keep_alive if math.isfinite(self.keep_alive) else None

    @property
    def exclusive(self) -> bool:
        """Whether the pool is never loaded together with another one of its group."""
        return self._exclusive

    def same_as(self, other: "Pool") -> bool:
        """Whether `other` is run in the same way. A configured `ctx` differs from its default: see ExternalPool."""
        return self == other and ("ctx" in self.model_fields_set) is ("ctx" in other.model_fields_set)

    def in_groups(self, groups: Mapping[str, Group]) -> "Pool":
        """Return the pool with the mode of its group in `groups`."""
        pool = self.model_copy()
        found = groups.get(self.group or "")
        pool._exclusive = found is not None and found.mode == "exclusive"
        return pool


class PoolsFile(Table):
    """A pools file. Its pools do not know the modes of their groups, which another file may declare."""

    pools: Annotated[list[Pool], Field(max_length=256)] = []
    groups: Annotated[dict[PoolId, Group], Field(max_length=256)] = {}
