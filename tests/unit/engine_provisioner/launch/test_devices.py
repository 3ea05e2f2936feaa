"""A GPU that is configured and not there is a refusal with a hint; the CPU is used only when that is said."""

import pytest

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.devices import check_engine_sees, check_present, mask_text, wanted
from llama_orch.settings.types import GpuMask
from tests.unit.engine_provisioner.pools import engine, pool

CPU = GpuMask(())


def test_a_pool_without_devices_takes_the_whole_mask() -> None:
    assert wanted(pool(), GpuMask((1, 3))) == (1, 3)


def test_a_pool_takes_its_own_devices_within_the_mask() -> None:
    assert wanted(pool(devices=[3]), GpuMask((1, 3))) == (3,)


def test_a_device_outside_the_mask_is_refused_for_good() -> None:
    with pytest.raises(ProvisioningFailure, match="GPUs 2, which are not in ENGINE_PROVISIONER_GPU_MASK=0,1") as caught:
        wanted(pool(devices=[1, 2]), GpuMask((0, 1)))
    assert caught.value.retry is Retry.NEVER


def test_cpu_is_the_absence_of_devices_and_contradicts_a_pool_that_names_some() -> None:
    assert wanted(pool(), CPU) == ()
    with pytest.raises(ProvisioningFailure, match="puts engines on the CPU"):
        wanted(pool(devices=[0]), CPU)


def test_an_absent_gpu_is_refused_with_what_is_there_and_how_to_ask_for_the_cpu() -> None:
    check_present((0,), {0: "H100"})
    with pytest.raises(ProvisioningFailure, match=r"GPU 1 is configured.*there: 0 \(H100\).*GPU_MASK=cpu"):
        check_present((0, 1), {0: "H100"})


def test_an_engine_that_would_quietly_use_the_cpu_is_refused() -> None:
    check_engine_sees(engine(), (0,), "Available devices:\n  CUDA0: H100 (1 MiB, 1 MiB free)\n")
    with pytest.raises(ProvisioningFailure, match=r"sees 0 of the 1 GPUs 0 and would run on the CPU"):
        check_engine_sees(engine(), (0,), "Available devices:\n")


def test_the_mask_reads_as_in_handoff_files() -> None:
    assert (mask_text((0, 2)), mask_text(())) == ("0,2", "cpu")
