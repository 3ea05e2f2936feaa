"""What a command line says about memory."""

from pathlib import Path

import pytest

from engine_provisioner.launch.command import engine_command
from engine_provisioner.memory.plan import LoadPlan, plan_of
from tests.unit.engine_provisioner.pools import MODEL, engine, pool


def test_command_of_pool_gives_its_context_and_slots() -> None:
    flags = ["--cache-type-k", "q8_0", "-ctv", "q4_0"]
    command = engine_command(
        pool(ctx=4096, slots=3, flags=flags), engine("--n-gpu-layers"), MODEL, port=1, devices=(0, 1), cache_ram_mib=1
    )
    plan = plan_of(command.argv, 2)
    assert (plan.ctx, plan.slots, plan.gpu_layers, plan.devices) == (4096, 3, 999, 2)
    assert (plan.cache_type_k, plan.cache_type_v) == ("q8_0", "q4_0")


def test_last_of_equal_options_counts() -> None:
    argv = ["-ngl", "3", "--gpu-layers=7", "-kvu", "-no-kvu", "-fa", "on", "--flash-attn", "off"]
    assert plan_of(argv, 1) == LoadPlan(ctx=0, gpu_layers=7, devices=1, flash_attention=False)


def test_without_devices_no_layer_is_offloaded() -> None:
    assert plan_of(["-ngl", "99"], 0).gpu_layers == 0


@pytest.mark.parametrize("argv", [["-c"], ["-c", "many"], ["-ctk", "q3"], ["-np", "-1"], ["-ub", "²"], [""]])
def test_invalid_values_leave_defaults(argv: list[str]) -> None:
    assert plan_of(argv, 0) == LoadPlan(ctx=0)


def test_switches_are_read() -> None:
    plan = plan_of(["--kv-unified", "--swa-full", "-nkvo", "-ub", "128", "-c", "100"], 0)
    assert plan == LoadPlan(ctx=100, unified=True, swa_full=True, kv_on_host=True, ubatch=128)


def test_path_of_model_is_no_option() -> None:
    assert plan_of(["-m", str(Path("/srv/-c")), "-c", "8"], 0).ctx == 8
