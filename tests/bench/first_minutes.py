"""From the .deb to the first token, by the commands of README.md, on a booted Debian that has never seen llama-orch.

Counts the commands and the files that have to be edited, too. The model and the engine come from imitations of the hub
and of the package index on the same machine, so that the figures are without the network of a real user: the engine has
34 MB, the model as many as the user chooses.
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.engines.tiny_model import tiny_model
from tests.engines.wheels import WheelsUnavailable
from tests.system.lab.container import CommandFailed
from tests.system.lab.new_user import NewUser, machine_of_new_user
from tests.system.lab.package import ROOT, built_deb
from tests.system.lab.prerequisites import missing
from tests.system.lab.rootfs import SUITES

REPOSITORY = "org/tiny-GGUF"
LIMIT_S = 300.0
PLACEHOLDER = "hf:ORG/REPO:Q4_K_M"


def commands() -> list[str]:
    """Return the commands of the first block in README.md's section First answer, without sudo and comments."""
    text = (ROOT / "README.md").read_text()
    [block] = re.findall(r"^### First answer$.*?^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].strip().removeprefix("sudo ") for line in block.splitlines()]
    return [line for line in lines if line]


def measure(user: NewUser) -> list[tuple[str, float]]:
    """Run the commands and return each with its seconds."""
    found = []
    for command in commands():
        shown = command.replace("./dist/", "./").replace(PLACEHOLDER, f"hf:{REPOSITORY}:Q4_K_M")
        begun = time.perf_counter()
        answer = "--max-tokens 1" if " run " in shown else ""
        user.container.check("sh", "-c", f"cd /root && {shown} {answer}", limit_s=LIMIT_S)
        found.append((command, time.perf_counter() - begun))
    return found


def configured_files(user: NewUser) -> list[str]:
    """Return the files below /etc/llama-orch that differ from those of the package."""
    return user.container.run("sh", "-c", "dpkg --verify llama-orch | grep -o '/etc/llama-orch/.*'").stdout.split()


def main() -> None:
    """Print the figures for each release."""
    deb = built_deb()
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory) / REPOSITORY
        repository.mkdir(parents=True)
        (repository / "tiny-Q4_K_M.gguf").write_bytes(tiny_model().read_bytes())
        for suite in SUITES:
            try:
                with machine_of_new_user(suite, "minutes", deb, Path(directory)) as user:
                    steps = measure(user)
                    edited = configured_files(user)
            except (CommandFailed, WheelsUnavailable) as error:
                print(f"{suite}: benchmark failed: {error}", file=sys.stderr)
                continue
            total = sum(seconds for _command, seconds in steps)
            print(
                f"{suite}: package to first token: {total:.1f} s, {len(steps)} steps, {len(edited)} files edited",
                end="",
            )
            print(f" (load of the host: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors)")
            for command, seconds in steps:
                print(f"{suite}:   {seconds:5.1f} s  {command}")


if __name__ == "__main__":
    if problems := missing():
        sys.exit(f"cannot boot a machine: {'; '.join(problems)}")
    main()
