"""Provisioning mode `package`: the distribution's llama-server, or xllamacpp installed privately by pip.

Owns `engines/pip-xllamacpp-*` in the cache directory. A directory appears complete or not at all.
"""

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import trio
from pydantic import AfterValidator, StringConstraints

from engine_provisioner import engine_record
from engine_provisioner.engine import Program, base_environment
from engine_provisioner.engine_record import EngineRecord
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes import pip
from engine_provisioner.modes.mode import Finding, OneLine, ProvisioningMode, Workspace
from engine_provisioner.modes.planning import EnginePlan, PlanSite, Step, StepState, blocked
from llama_orch.files import durable
from llama_orch.packages import Tool, install_command

PIP_PREFIX = "pip:"
PYTHON_PACKAGE = "xllamacpp"
EXECUTABLE = "llama-server"
RUNNER = Path(__file__).parents[1] / "xllamacpp_server.py"


def _package_name(value: str) -> str:
    if value not in ("llama.cpp", PYTHON_PACKAGE, f"{PIP_PREFIX}{PYTHON_PACKAGE}"):
        raise ValueError("must be llama.cpp (the distribution's) or pip:xllamacpp (a private install)")
    return f"{PIP_PREFIX}{PYTHON_PACKAGE}" if value == PYTHON_PACKAGE else value


class PackageMode(ProvisioningMode):
    """An engine from a package: `llama.cpp` as the distribution installed it, or `pip:xllamacpp`, installed
    privately in the cache directory."""

    mode: Literal["package"]
    name: Annotated[OneLine, AfterValidator(_package_name)]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.+!-]{0,63}$")] | None = None
    allow_package_installs: bool = False

    @property
    def engine_key(self) -> str:
        """The package: installs of one package run one at a time."""
        return self.name

    def problems(self) -> Iterator[Finding]:
        """Require the operator's consent, and a version for pip only."""
        if not self.allow_package_installs:
            yield ("provisioning",), "mode package runs a packaged program; allow it by allow_package_installs = true"
        if self.version is not None and not self._by_pip:
            yield ("provisioning", "version"), "is not allowed with llama.cpp: the distribution chooses the version"
        if self._by_pip and self.version is None:
            yield ("provisioning",), 'version is missing: pip: requires it, as in version = "2026.10.11549"'

    async def obtain(self, workspace: Workspace) -> Program:
        """Return the packaged engine, installed by pip first if need be. Raises ProvisioningFailure."""
        if not self._by_pip:
            return await trio.to_thread.run_sync(find_distribution_engine)
        workspace.deadline.expect(pip.INSTALL_S, "installing the engine with pip")
        await workspace.report(f"installing {self.name} {self.version}")
        return await install_with_pip(str(self.version), workspace.cache_dir)

    async def plan(self, site: PlanSite) -> EnginePlan:
        """Return whether the package is installed."""
        gates = ("allow_package_installs",)
        try:
            if not self._by_pip:
                program = await trio.to_thread.run_sync(find_distribution_engine)
                return EnginePlan((Step("engine", self.name, StepState.PRESENT),), program.argv, gates=gates)
            program = pip_program(str(self.version), site.cache_dir)
            subject = f"{self.name} {self.version}"
            if await trio.Path(program.file).exists():
                return EnginePlan(
                    (Step("engine", subject, StepState.PRESENT),), program.argv, program.record, gates=gates
                )
            await trio.to_thread.run_sync(pip.command)
            return EnginePlan((Step("engine", subject, StepState.INSTALL, "with pip"),), program.argv, gates=gates)
        except ProvisioningFailure as failure:
            return EnginePlan((blocked("engine", self.name, failure),), gates=gates)

    @property
    def _by_pip(self) -> bool:
        return self.name.startswith(PIP_PREFIX)


def find_distribution_engine() -> Program:
    """Return the llama-server on the PATH. Blocks on the disk; raises ProvisioningFailure."""
    found = shutil.which(EXECUTABLE, path=base_environment()["PATH"])
    if found is None:
        command = install_command([Tool(EXECUTABLE, apt="llama.cpp", dnf="llama-cpp")])
        hint = f"Install it: {command} (in Debian 14, Fedora 41 and later), or use mode binary or pip:xllamacpp."
        raise ProvisioningFailure(f"{EXECUTABLE} is not on the PATH", hint, Retry.AFTER_FIX)
    return Program((found,), Path(found))


async def install_with_pip(version: str, cache_dir: Path) -> Program:
    """Return xllamacpp in this version, installed in `cache_dir` once. Raises ProvisioningFailure."""
    program = pip_program(version, cache_dir)
    if program.record and not await trio.Path(program.record).is_dir():
        await _install(version, program.record)
    return program


def pip_program(version: str, cache_dir: Path) -> Program:
    """Return xllamacpp in this version, whether or not it is installed."""
    abi = sysconfig.get_config_var("SOABI") or "any"
    site = cache_dir / "engines" / f"pip-{PYTHON_PACKAGE}-{version}-{abi}"
    module = site / PYTHON_PACKAGE / "__init__.py"
    return Program((sys.executable, "-I", str(RUNNER), "--site", str(site)), module, site)


async def _install(version: str, site: Path) -> None:
    draft = site.with_name(f".{site.name}.draft")
    await trio.to_thread.run_sync(_clear, draft)
    try:
        await pip.install(f"{PYTHON_PACKAGE}=={version}", draft)
        await trio.to_thread.run_sync(_publish, draft, site, version)
    except OSError as error:
        message = f"cannot install {PYTHON_PACKAGE} into {site}: {error.strerror or error}"
        hint = "Check free disk space and that engine-provisioner owns the directory."
        raise ProvisioningFailure(message, hint) from error
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_clear, draft)


def _clear(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _publish(draft: Path, site: Path, version: str) -> None:
    """Make the tree readable for the group, which includes the engine's user, then move it into place."""
    module = draft / PYTHON_PACKAGE / "__init__.py"
    source = f"{PIP_PREFIX}{PYTHON_PACKAGE} {version}"
    engine_record.write(draft, EngineRecord.of(draft, "package", source, module))
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o750 if path.is_dir() or path.stat().st_mode & 0o100 else 0o640)
    draft.rename(site)
    durable.sync_directory(site.parent)
