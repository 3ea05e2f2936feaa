"""The models of the pools file, documented in llama-orch-pools(5).

Validation is strict: for example, a quoted number is an error.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints

from engine_provisioner.modes.mode import ProvisioningMode
from engine_provisioner.modes.registry import MODES
from engine_provisioner.sources.registry import check_reference
from llama_orch.contracts.base import Inbound, PoolId
from llama_orch.contracts.engines import EngineKind, Workload

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


def _distinct(value: list[Item]) -> list[Item]:
    if len(set(value)) != len(value):
        raise ValueError("contains a value twice")
    return value


Flag = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_flag)]
Reference = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_reference)]
Checksum = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Device = Annotated[int, Field(ge=0, le=255)]


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


class Pool(Table):
    """A pool: an engine, its model, and the devices it runs on. `ctx` is the context per slot in tokens."""

    id: PoolId
    engine: EngineKind = "llamacpp"
    model: Annotated[Model | None, BeforeValidator(_model, json_schema_input_type=str | Model | None)] = None
    devices: Annotated[list[Device], Field(min_length=1), AfterValidator(_distinct)] | None = None
    ctx: Annotated[int, Field(ge=16, le=16_777_216)] = 4096
    slots: Annotated[int, Field(ge=1, le=256)] = 1
    preload: bool = True
    workloads: Annotated[list[Workload], Field(min_length=1), AfterValidator(_distinct)] | None = None
    flags: Annotated[list[Flag], Field(max_length=200)] = []
    env: Annotated[dict[str, str], AfterValidator(_environment)] = {}
    ports: Annotated[list[Port], Field(max_length=1)] = []
    tensor_split: list[Annotated[float, Field(ge=0)]] = []
    quant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,32}$")] | None = None
    timeouts: Timeouts = Timeouts()
    provisioning: Provisioning


class PoolsFile(Table):
    """The pools file."""

    pools: Annotated[list[Pool], Field(max_length=256)] = []
