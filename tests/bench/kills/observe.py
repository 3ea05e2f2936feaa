"""Runs inside a machine, with its own Python: prints what runs and what lies on the disk, as JSON.

`python3 observe.py` is quick; `python3 observe.py files` also hashes every file of the cache.
"""

import glob
import hashlib
import json
import os
import pwd
import re
import subprocess
import sys

UNIT = re.compile(r"(llama-engine(?:-container)?@[^/]+\.service)")
CACHE = "/var/cache/llama-orch"
DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")


def processes():
    """Yield pid, program and unit of each process of the engines' user, and of each monitor of a container."""
    engine = pwd.getpwnam("llama-engine").pw_uid
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{path}/comm") as file:
                program = file.read().strip()
            with open(f"{path}/stat") as file:
                dead = file.read().rpartition(")")[2].split()[0] == "Z"
            with open(f"{path}/cgroup") as file:
                found = UNIT.search(file.read())
            if not dead and (os.stat(path).st_uid == engine or program in ("conmon", "podman", "crun")):
                kind = "engine" if os.stat(path).st_uid == engine else program
                yield {"pid": int(path.rpartition("/")[2]), "kind": kind, "unit": found and found[1]}
        except (OSError, ProcessLookupError):
            continue


def units():
    """Return the state of each engine's unit and of the daemons."""
    command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "llama-engine*@*.service"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    states = {line.split()[0]: line.split()[2] for line in lines if UNIT.search(line.split()[0])}
    shown = subprocess.run(
        ["systemctl", "is-active", *DAEMONS], capture_output=True, text=True, check=False
    ).stdout.split()
    return {**states, **dict(zip(DAEMONS, shown, strict=False))}


def records():
    """Yield each record of a model with its files: path, size and digest as recorded and as found."""
    for path in glob.glob(f"{CACHE}/index/*.json"):
        with open(path) as file:
            record = json.load(file)
        for each in record["files"]:
            yield {"ref": record["ref"], **each, "found": facts(each["path"])}


def facts(path):
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return {"size_bytes": file.tell(), "digest": f"sha256:{digest.hexdigest()}"}
    except OSError:
        return None


def main():
    handoffs = [os.path.basename(path) for path in glob.glob("/run/llama-orch/engines/*.json")]
    seen = {"processes": list(processes()), "units": units(), "handoffs": handoffs}
    if "files" in sys.argv:
        seen["records"] = list(records())
        seen["blobs"] = {path: facts(path) for path in glob.glob(f"{CACHE}/huggingface/hub/*/blobs/*")}
        seen["models"] = {path: facts(path) for path in glob.glob(f"{CACHE}/models/*/*")}
        command = ["podman", "ps", "--all", "--format", "{{.Names}}"]
        seen["containers"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    print(json.dumps(seen))


main()
