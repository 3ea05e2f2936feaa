"""llama-server's command line: the pool's keys, limited to options that the engine knows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.engine import Engine, EngineCommand
from engine_provisioner.launch.command import announced_flags, cache_ram_mib, engine_command
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.contracts.pools import PoolState
from queen_rbee.pools.candidates import Candidate, served_name
from tests.unit.engine_provisioner.pools import MODEL, engine, pool

CURRENT = engine(
    "--cont-batching", "--metrics", "--slots", "--no-webui", "--offline", "--cache-ram", "--device", "--n-gpu-layers",
    "--tensor-split", "--alias", "--batch-size", "--ubatch-size",
    "--cors-origins",
)  # fmt: skip


def argv(subject: Pool, known: Engine = CURRENT, devices: tuple[int, ...] = ()) -> tuple[str, ...]:
    return engine_command(subject, known, MODEL, port=18080, devices=devices, cache_ram_mib=512).argv


def replica(model: str) -> Candidate:
    """A replica that serves `model`, as queen-rbee sees it."""
    return Candidate("p", "r0", "http://x", PoolState.READY, True, False, 1, 0, "llamacpp", models=(model,))


def value(arguments: tuple[str, ...], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_engine_listens_on_loopback_on_its_port() -> None:
    arguments = argv(pool())
    assert (value(arguments, "--host"), value(arguments, "--port")) == ("127.0.0.1", "18080")
    assert EngineCommand(arguments, {}).port == 18080


@given(st.integers(16, 100_000), st.integers(1, 64))
def test_each_slot_gets_the_pools_context(ctx: int, slots: int) -> None:
    arguments = argv(pool(ctx=ctx, slots=slots))
    assert int(value(arguments, "-c")) == ctx * int(value(arguments, "-np"))


def test_cpu_engine_sees_no_gpu() -> None:
    command = engine_command(pool(), CURRENT, MODEL, port=1, devices=(), cache_ram_mib=1)
    assert value(command.argv, "--device") == "none"
    assert command.env["CUDA_VISIBLE_DEVICES"] == ""


def test_gpu_engine_sees_its_gpus_and_offloads_all_layers() -> None:
    subject = pool(devices=[2, 0], tensor_split=[3, 1])
    command = engine_command(subject, CURRENT, MODEL, port=1, devices=(2, 0), cache_ram_mib=1)
    assert command.env == {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert value(command.argv, "--n-gpu-layers") == "999"
    assert value(command.argv, "--tensor-split") == "3,1"
    assert "--device" not in command.argv


def test_old_engine_gets_only_basic_options() -> None:
    assert argv(pool(), engine())[1:] == (
        "-m", "/srv/model.gguf", "--host", "127.0.0.1", "--port", "18080", "-c", "4096", "-np", "1", "-ngl", "0",
    )  # fmt: skip


def test_renamed_option_is_passed_by_its_known_name() -> None:
    assert "--no-ui" in argv(pool(), engine("--no-ui"))


def test_flag_of_the_pool_replaces_the_default() -> None:
    arguments = argv(pool(flags=["--cache-ram", "0", "--webui"]))
    assert arguments.count("--cache-ram") == 1
    assert value(arguments, "--cache-ram") == "0"
    assert "--no-webui" not in arguments


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("hf:org/repo/Tiny-Q4.gguf", "Tiny-Q4"),
        ("file:/models/tiny.gguf", "tiny"),
        ("https://host/dir/tiny", "tiny"),
        ("tiny", "tiny"),
    ],
)
def test_alias_is_the_file_name_without_path(name: str, alias: str) -> None:
    command = engine_command(pool(), CURRENT, replace(MODEL, name=name), port=1, devices=(), cache_ram_mib=1)
    assert value(command.argv, "--alias") == alias
    assert served_name(replica(name), alias) == name  # who asks for what an answer says gets the same model


def test_alias_with_comma_is_not_passed() -> None:
    command = engine_command(
        pool(), CURRENT, replace(MODEL, name="file:/m/a,b.gguf"), port=1, devices=(), cache_ram_mib=1
    )
    assert "--alias" not in command.argv


def test_alias_of_the_pool_replaces_the_default() -> None:
    for flags in (["--alias", "mine"], ["-a", "mine"], ["--alias=mine"]):
        assert [word for word in argv(pool(flags=flags)) if word.startswith(("--alias", "-a"))] == flags[:1]


@pytest.mark.parametrize(
    "started_by",
    [{"flags": [flag]} for flag in ("--embeddings", "--embedding", "--rerank", "--reranking")]
    + [{"workloads": ["embedding"]}, {"env": {"LLAMA_ARG_EMBEDDINGS": "1"}}],
    ids=str,
)
def test_embeddings_pool_has_a_batch_as_large_as_its_context(started_by: dict[str, Any]) -> None:
    arguments = argv(pool(ctx=4096, slots=4, **started_by))
    assert (value(arguments, "--batch-size"), value(arguments, "--ubatch-size")) == ("4096", "4096")


def test_embeddings_pool_keeps_the_batch_that_it_sets() -> None:
    arguments = argv(pool(ctx=4096, flags=["--embeddings", "-ub", "1024"]))
    assert ("--ubatch-size" in arguments, value(arguments, "-ub")) == (False, "1024")
    by_variable = argv(pool(ctx=4096, env={"LLAMA_ARG_EMBEDDINGS": "1", "LLAMA_ARG_UBATCH": "1024"}))
    assert ("--ubatch-size" in by_variable, value(by_variable, "--batch-size")) == (False, "4096")


def test_web_pages_cannot_read_answers() -> None:
    assert value(argv(pool()), "--cors-origins") == "http://none.invalid"


def test_pool_without_embeddings_keeps_the_engines_batch() -> None:
    assert not {"--batch-size", "--ubatch-size"} & set(argv(pool(ctx=4096)))


def test_variables_of_the_pool_reach_the_engine() -> None:
    command = engine_command(pool(env={"A": "b"}), CURRENT, MODEL, port=1, devices=(), cache_ram_mib=1)
    assert command.env["A"] == "b"


@given(st.integers(0, 1 << 45))
def test_cached_prompts_take_at_most_a_sixteenth_of_memory(memory: int) -> None:
    share = cache_ram_mib(memory)
    assert 0 <= share <= 2048
    assert share * 16 <= memory >> 20


def test_announced_flags_fit_into_a_handoff_file() -> None:
    command = engine_command(pool(flags=["x" * 256] * 200), CURRENT, MODEL, port=1, devices=(), cache_ram_mib=1)
    flags = announced_flags(command, CURRENT)
    assert flags[0] == "-m"
    assert len(flags) <= 256
    assert all(0 < len(flag) <= 256 for flag in flags)


def test_same_command_gives_the_same_launch_file() -> None:
    one, other = EngineCommand(("/e",), {"a": "1", "b": "2"}), EngineCommand(("/e",), {"b": "2", "a": "1"})
    assert one.document() == other.document()


def test_projector_and_template_are_passed_unless_flags_say_otherwise() -> None:
    model = replace(MODEL, mmproj=Path("/srv/mmproj.gguf"), template=Path("/srv/template.jinja"))
    known = engine("--mmproj", "--chat-template-file")

    def arguments(*flags: str) -> tuple[str, ...]:
        return engine_command(pool(flags=list(flags)), known, model, port=1, devices=(), cache_ram_mib=1).argv

    assert value(arguments(), "--mmproj") == "/srv/mmproj.gguf"
    assert value(arguments(), "--chat-template-file") == "/srv/template.jinja"
    assert "/srv/mmproj.gguf" not in arguments("--no-mmproj")
    assert arguments("--mmproj", "/other.gguf").count("--mmproj") == 1
    assert "--chat-template-file" not in arguments("--chat-template", "chatml")
    assert "--mmproj" not in argv(pool())
