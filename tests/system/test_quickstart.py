"""The commands of llama-orch-quickstart(7) work, in their order, on machines that have only got the package."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.fixtures import skip_or_fail
from tests.engines.wheels import WheelsUnavailable
from tests.system.lab.bridge import bridge
from tests.system.lab.container import Container, Result
from tests.system.lab.new_user import HOME, PIP, machine_of_new_user
from tests.system.lab.waiting import until
from tests.unit.manual_page import Page

SUITE = "trixie"
PAGE = Path(__file__).parents[2] / "man/llama-orch-quickstart.7"
COMMAND = re.compile(r"(?P<sign>#|\$|gpu#) (?P<text>.*)")
MODEL = re.compile(r"hf:([\w./-]+)/([\w.-]+):(\w+)")
LIMIT_S = 120.0
TOKEN = "/etc/llama-orch/api-token"
SHOWS_STATE = ("orchctl nodes", "orchctl pools", "orchctl ps", "orchctl check", "orchctl status", "orchctl tasks")
"""Commands that change nothing, and show what comes about within seconds."""


@dataclass
class Step:
    """A command of the page, with the lines that it prints in part."""

    sign: str
    text: str
    expected: list[str]


def steps() -> list[Step]:
    """Return the commands of the examples. A line ends with a backslash, an open quote or a here document."""
    found: list[Step] = []
    for example in Page(PAGE).examples():
        lines = iter(example.splitlines())
        for line in lines:
            start = COMMAND.fullmatch(line)
            if not start:
                found[-1].expected.append(line)
                continue
            text = start["text"]
            document = re.search(r"<<'(\w+)'", text)
            while text.endswith("\\") or text.count("'") % 2 or (document and not text.endswith(f"\n{document[1]}")):
                text += "\n" + next(lines)
            found.append(Step(start["sign"], text, []))
    return found


@dataclass(frozen=True)
class Machines:
    first: Container
    gpu: Container

    def run(self, step: Step) -> Result:
        """Run the command as the page says: by root or a user, on this machine or the other one."""
        container = self.gpu if step.sign == "gpu#" else self.first
        pip = [f"{name}={value}" for name, value in PIP.items()]
        shell = ["env", *pip, "bash", "-c", step.text]
        if step.sign == "$":
            shell = ["runuser", "-u", "user", "--", "env", "-C", HOME, *shell[1:]]
        else:
            shell = ["env", "-C", "/root", *shell[1:]]
        typed = self.first.path(TOKEN).read_text() if "/dev/stdin" in step.text else ""
        return container.run(*shell, stdin=typed, limit_s=LIMIT_S)

    def journal(self) -> str:
        """Return the last lines of both machines, for error messages."""
        words = ("journalctl", "--no-pager", "--lines=40", "--output=short-precise")
        return "\n--- gpu\n".join(container.run(*words).stdout for container in (self.first, self.gpu))


@pytest.fixture(scope="module")
def machines(deb: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The machine of the page, and one that has GPUs in the page, but not in the test."""
    hub = tmp_path_factory.mktemp("hub")
    for owner, name, quant in MODEL.findall("".join(step.text for step in steps())):
        (hub / owner / name).mkdir(parents=True, exist_ok=True)
        (hub / owner / name / f"{name.removesuffix('-GGUF')}-{quant}.gguf").write_bytes(tiny_model.read_bytes())
    try:
        with (
            bridge() as network,
            machine_of_new_user(SUITE, "first", deb, hub, "openai") as first,
            machine_of_new_user(SUITE, "gpu", deb, hub, environment={"ENGINE_PROVISIONER_GPU_MASK": "cpu"}) as gpu,
        ):
            address = network.connect(first.container).address
            network.connect(gpu.container)
            hosts = gpu.container.path("/etc/hosts")
            hosts.write_text(f"{hosts.read_text() if hosts.exists() else ''}127.0.0.1 localhost\n{address} queen.lan\n")
            yield Machines(first.container, gpu.container)
    except WheelsUnavailable as unavailable:
        skip_or_fail(str(unavailable))


def test_page_is_a_list_of_commands() -> None:
    commands = [step.text for step in steps()]
    assert len(commands) > 20
    assert commands[0].startswith("apt install")
    assert {step.sign for step in steps()} == {"#", "$", "gpu#"}


def test_every_command_of_the_page_works(machines: Machines) -> None:
    for step in steps():

        def lacking(step: Step = step) -> list[str]:
            """Run the command; return the lines of the page that it has not printed."""
            result = machines.run(step)
            assert result.status == 0, f"{step.sign} {step.text}\n{result.stdout}{result.stderr}"
            return [line for line in step.expected if line not in result.stdout]

        if step.text.startswith(SHOWS_STATE):
            until(lambda: not lacking(), f"{step.text} to show {step.expected}", LIMIT_S, machines.journal)
        else:
            assert lacking() == [], step.text
