"""A registered provisioning mode is accepted, documented and executed without further changes."""

import json
import subprocess
import sys
from typing import Any, get_args

import pytest

from engine_provisioner.modes.registry import MODES, mode_names
from llama_orch.contracts.handoff import Handoff

SCRIPT = """
import json, sys
from pathlib import Path
from typing import Literal
import trio
from engine_provisioner.engine import Program
from engine_provisioner.modes import registry
from engine_provisioner.modes.mode import Finding, OneLine, ProvisioningMode, Workspace

class DummyMode(ProvisioningMode):
    mode: Literal["dummy"]
    path: OneLine

    def problems(self):
        if not self.path.startswith("/"):
            yield ("provisioning", "path"), "is not absolute"

    async def obtain(self, workspace):
        return Program((self.path,), Path(self.path))

registry.MODES.append(DummyMode)

from tests.unit.engine_provisioner.fetching import acquirer
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.spec.pools_file import PoolsFileError, parse
from engine_provisioner.spec.pools_schema import pools_schema

def read(how):
    text = f'[[pools]]\\nid = "a"\\nmodel = "file:/m.gguf"\\nprovisioning = {how}\\n'
    return parse(text.encode(), Path("pools.toml"))

def problem(how):
    try:
        read(how)
    except PoolsFileError as error:
        return str(error)

[pool] = read('{ mode = "dummy", path = "/opt/engine" }')
print(json.dumps({
    "schema": json.loads(pools_schema())["$defs"]["Pool"]["properties"]["provisioning"]["discriminator"]["mapping"],
    "contradiction": problem('{ mode = "dummy", path = "engine" }'),
    "unknown_key": problem('{ mode = "dummy", path = "/e", colour = "blue" }'),
    "unknown_mode": problem('{ mode = "magic" }'),
    "program": trio.run(acquirer(Path("/nonexistent")).program, pool, StepDeadline("a"), None).argv,
}))
"""


@pytest.fixture(scope="module")
def with_dummy_mode() -> dict[str, Any]:
    """Results of a process in which a mode `dummy` was registered: models are built at import."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}


def test_registered_mode_is_in_the_schema(with_dummy_mode: dict[str, Any]) -> None:
    assert with_dummy_mode["schema"]["dummy"] == "#/$defs/DummyMode"


def test_registered_mode_is_validated(with_dummy_mode: dict[str, Any]) -> None:
    assert with_dummy_mode["contradiction"] == "pools.toml:4: pools[0].provisioning.path: is not absolute"
    assert "allowed: mode, path" in with_dummy_mode["unknown_key"]


def test_registered_mode_is_listed_as_allowed(with_dummy_mode: dict[str, Any]) -> None:
    assert "allowed: external, source, container, package, binary, dummy" in with_dummy_mode["unknown_mode"]


def test_registered_mode_provides_the_program(with_dummy_mode: dict[str, Any]) -> None:
    assert with_dummy_mode["program"] == ["/opt/engine"]


def test_every_mode_has_its_own_name() -> None:
    assert len(set(mode_names())) == len(MODES)


def test_handoff_contract_accepts_every_mode() -> None:
    names = {name for each in get_args(Handoff.model_fields["provisioning_mode"].annotation) for name in get_args(each)}
    assert set(mode_names()) <= names
