"""Output of all llama-server releases is parsed, and probes are bounded in time."""

from pathlib import Path

import pytest

from engine_provisioner.engine import Program
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch import probes
from engine_provisioner.launch.probes import Probes, devices_in, options_in, probe, version_in

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (use --no-such-thing)
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
                                        - none: use one GPU only
"""
DEVICES = """\
ggml_cuda_init: found 2 CUDA devices:
  Device 0: NVIDIA H100, compute capability 9.0
Available devices:
  CUDA0: NVIDIA H100 80GB HBM3 (81089 MiB, 80640 MiB free)
  CUDA1: NVIDIA H100 80GB HBM3 (81089 MiB, 80640 MiB free)
"""


def script(directory: Path, text: str) -> Program:
    path = directory / "llama-server"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Program((str(path),), path)


def test_all_spellings_of_options_are_found() -> None:
    assert options_in(HELP) == {
        "-h", "--help", "--usage", "-c", "--ctx-size", "--ui", "--webui", "--no-ui", "--no-webui", "-kvo",
        "--kv-offload", "-nkvo", "--no-kv-offload", "-ts", "--tensor-split",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU", "0.7.0 (build 11669, commit Debian)"),
        ("ggml_cuda_init: found 1\nversion: 5234 (abc123)\n", "5234 (abc123)"),
        ("", "unknown"),
    ],
)
def test_version_is_found_among_other_output(text: str, version: str) -> None:
    assert version_in(text) == version


def test_device_list_is_parsed() -> None:
    assert devices_in(DEVICES) == ["CUDA0", "CUDA1"]
    assert devices_in("Available devices:\n  (none)\n") == []


async def test_probe_returns_version_and_options(tmp_path: Path) -> None:
    program = script(tmp_path, 'case $1 in --version) echo "version: 1" >&2;; --help) echo "--slots  x";; esac')
    found = await probe(program)
    assert (found.version, found.options) == ("1", frozenset({"--slots"}))


async def test_program_is_asked_once_until_its_file_changes(tmp_path: Path) -> None:
    program, asked = script(tmp_path, 'case $1 in --version) echo "version: 1";; esac'), Probes()
    assert [(await asked.engine(program))[1] for _ in range(2)] == [True, False]
    script(tmp_path, 'case $1 in --version) echo "version: 20";; esac')
    engine, again = await asked.engine(program)
    assert (engine.version, again) == ("20", True)


async def test_failure_of_a_program_is_not_remembered(tmp_path: Path) -> None:
    program, asked = script(tmp_path, f"test -e {tmp_path}/library"), Probes()
    with pytest.raises(ProvisioningFailure):
        await asked.engine(program)
    (tmp_path / "library").touch()
    assert (await asked.engine(program))[1]


async def test_missing_library_is_reported_in_the_engines_words(tmp_path: Path) -> None:
    program = script(tmp_path, "echo 'error while loading shared libraries: libcuda.so.1' >&2; exit 127")
    with pytest.raises(
        ProvisioningFailure, match="status 127: error while loading shared libraries: libcuda"
    ) as caught:
        await probe(program)
    assert caught.value.watch == (program.file,)


async def test_hanging_engine_fails_after_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "LIMIT_S", 0.1)
    with pytest.raises(ProvisioningFailure, match="--version did not end within"):
        await probe(script(tmp_path, "exec sleep 60"))


async def test_program_for_another_machine_is_reported(tmp_path: Path) -> None:
    program = script(tmp_path, "")
    program.file.write_bytes(b"\x7fELF no such machine")
    with pytest.raises(ProvisioningFailure, match="cannot be executed"):
        await probe(program)
