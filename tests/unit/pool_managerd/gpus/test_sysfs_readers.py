"""AMD and Intel GPUs on imitations of sysfs, with the files that the kernel's documentation describes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pool_managerd.gpus import sysfs
from pool_managerd.gpus.amd_reader import AmdReader
from pool_managerd.gpus.intel_reader import IntelReader
from pool_managerd.gpus.reader import Reading

GIB = 1 << 30
MEMINFO = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   24000000 kB\n"


def write(directory: Path, files: Mapping[str, object]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def add_card(
    root: Path, card: str, address: str, files: Mapping[str, object], of_card: Mapping[str, object] | None = None
) -> Path:
    """Add a PCI device and its card with links as in sysfs; return the device's directory."""
    device = root / "devices/pci0000:00" / address
    write(device, files)
    entry = root / "class/drm" / card
    write(entry, of_card or {})
    entry.mkdir(parents=True, exist_ok=True)
    (entry / "device").symlink_to(device)
    (root / f"class/drm/{card}-DP-1").mkdir()
    bus = root / "bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(device)
    return device


RADEON = {
    "vendor": "0x1002",
    "device": "0x744c",
    "class": "0x030000",
    "unique_id": "0123456789abcdef",
    "product_name": "AMD Radeon PRO W7900",
    "mem_info_vram_total": 48 * GIB,
    "mem_info_vram_used": 8 * GIB,
    "mem_info_gtt_total": 16 * GIB,
    "mem_info_gtt_used": GIB,
    "gpu_busy_percent": 37,
    "hwmon/hwmon3/temp1_input": 54_000,
    "hwmon/hwmon3/temp1_crit": 100_000,
    "hwmon/hwmon3/power1_average": 180_000_000,
    "hwmon/hwmon3/power1_cap": 241_000_000,
    "hwmon/hwmon3/freq1_input": 2_100_000_000,
}
APU = {
    "vendor": "0x1002",
    "device": "0x150e",
    "mem_info_vram_total": GIB // 2,
    "mem_info_vram_used": GIB // 4,
    "mem_info_gtt_total": 15 * GIB,
    "mem_info_gtt_used": GIB,
    "hwmon/hwmon1/temp1_input": 41_000,
    "hwmon/hwmon1/power1_input": 12_500_000,
}


def test_amd_card_has_memory_sensors_and_name(tmp_path: Path) -> None:
    add_card(tmp_path, "card1", "0000:03:00.0", RADEON)
    (gpu,) = AmdReader(tmp_path).read(discover=True).devices
    assert (gpu.uuid, gpu.name, gpu.vendor, gpu.pci) == (
        "GPU-0123456789abcdef",
        "AMD Radeon PRO W7900",
        "amd",
        "0000:03:00.0",
    )
    assert (gpu.vram_total_bytes, gpu.vram_used_bytes, gpu.unified_memory) == (48 * GIB, 8 * GIB, False)
    assert (gpu.utilization, gpu.temperature_c, gpu.slowdown_c, gpu.clock_mhz) == (37, 54, 100, 2100)
    assert (gpu.power_w, gpu.power_limit_w, gpu.overheated) == (180.0, 241.0, None)


def test_amd_processor_gpu_shares_the_memory(tmp_path: Path) -> None:
    add_card(tmp_path, "card0", "0000:c4:00.0", APU)
    (gpu,) = AmdReader(tmp_path).read(discover=True).devices
    assert (gpu.vram_total_bytes, gpu.vram_used_bytes) == (15 * GIB + GIB // 2, GIB + GIB // 4)
    assert (gpu.unified_memory, gpu.power_w, gpu.uuid) == (True, 12.5, "PCI-0000:c4:00.0")


def test_cards_are_in_order_of_their_addresses(tmp_path: Path) -> None:
    add_card(tmp_path, "card0", "0000:43:00.0", RADEON | {"unique_id": "b"})
    add_card(tmp_path, "card1", "0000:03:00.0", RADEON | {"unique_id": "a"})
    assert [gpu.uuid for gpu in AmdReader(tmp_path).read(discover=True).devices] == ["GPU-a", "GPU-b"]


def test_vanished_amd_card_is_left_out(tmp_path: Path) -> None:
    device = add_card(tmp_path, "card0", "0000:03:00.0", RADEON)
    reader = AmdReader(tmp_path)
    assert reader.read(discover=True).devices
    (device / "mem_info_vram_total").unlink()
    assert reader.read(discover=False) == Reading()


def test_card_without_amdgpu_is_left_out(tmp_path: Path) -> None:
    add_card(tmp_path, "card0", "0000:03:00.0", {"vendor": "0x1002", "device": "0x1"})
    assert AmdReader(tmp_path).read(discover=True) == Reading()


@pytest.mark.parametrize("reader", [AmdReader, IntelReader])
def test_machine_without_cards_has_none(reader: type[AmdReader | IntelReader], tmp_path: Path) -> None:
    assert reader(tmp_path).read(discover=True) == Reading()


@pytest.mark.parametrize("content", ["", "garbage", "0x", "99999999999999999999999"])
def test_odd_content_is_no_value_or_a_bounded_one(tmp_path: Path, content: str) -> None:
    files = {name: content for name in RADEON if name.startswith(("mem_", "gpu_", "hwmon"))}
    add_card(tmp_path, "card0", "0000:03:00.0", {"vendor": "0x1002", "device": "0x1"} | files)
    for gpu in AmdReader(tmp_path).read(discover=True).devices:
        assert 0 <= gpu.vram_free_bytes <= gpu.vram_total_bytes


def test_intel_processor_gpu_has_the_memory_of_the_machine(tmp_path: Path) -> None:
    write(tmp_path, {"meminfo": MEMINFO})
    files = {"vendor": "0x8086", "device": "0x46a6", "hwmon/hwmon2/energy1_input": 5_000_000}
    add_card(tmp_path, "card0", "0000:00:02.0", files, {"gt_act_freq_mhz": 1300})
    (gpu,) = IntelReader(tmp_path, tmp_path / "meminfo").read(discover=True).devices
    assert (gpu.unified_memory, gpu.clock_mhz, gpu.energy_j, gpu.power_w) == (True, 1300, 5.0, None)
    assert (gpu.vram_total_bytes, gpu.vram_free_bytes) == (32_000_000 * 1024, 24_000_000 * 1024)


def test_intel_card_has_the_size_of_its_memory_window(tmp_path: Path) -> None:
    windows = (
        "0x0000000094000000 0x0000000094ffffff 0x0000000000140204\n"
        "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
        "0x0000004000000000 0x00000043ffffffff 0x000000000014220c"
    )
    files = {"vendor": "0x8086", "device": "0x56a0", "resource": windows, "tile0/gt0/freq0/act_freq": 2400}
    files |= {"hwmon/hwmon5/temp2_input": 49_000, "hwmon/hwmon5/power1_max": 190_000_000}
    add_card(tmp_path, "card1", "0000:03:00.0", files)
    (gpu,) = IntelReader(tmp_path).read(discover=True).devices
    assert (gpu.vram_total_bytes, gpu.vram_free_bytes, gpu.unified_memory) == (16 * GIB, 16 * GIB, False)
    assert (gpu.temperature_c, gpu.power_limit_w, gpu.clock_mhz, gpu.name) == (49, 190.0, 2400, "Intel GPU 0x56a0")


def test_intel_power_is_the_energy_since_the_last_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = add_card(tmp_path, "card0", "0000:03:00.0", {"vendor": "0x8086", "hwmon/hwmon0/energy1_input": 10_000_000})
    seconds = iter((100.0, 102.0))
    monkeypatch.setattr("pool_managerd.gpus.intel_reader.time.monotonic", lambda: next(seconds))
    reader = IntelReader(tmp_path)
    assert reader.read(discover=True).devices[0].power_w is None
    write(device, {"hwmon/hwmon0/energy1_input": 110_000_000})
    assert reader.read(discover=False).devices[0].power_w == 50.0


def test_names_come_from_the_pci_database(tmp_path: Path) -> None:
    database = tmp_path / "pci.ids"
    database.write_text(
        "# ids\n1002  AMD\n\t744c  Navi 31\n\t\t1002 0e3b  board\n8086  Intel\n\t744c  Other\nC 03  Display\n"
    )
    assert sysfs.pci_name("0x1002", "0x744c", (tmp_path / "none", database)) == "Navi 31"
    assert sysfs.pci_name("0x1002", "0xffff", (database,)) is None


def test_display_devices_are_found_without_a_driver(tmp_path: Path) -> None:
    add_card(tmp_path, "card0", "0000:03:00.0", {"vendor": "0x10de", "class": "0x030200"})
    add_card(tmp_path, "card1", "0000:04:00.0", {"vendor": "0x15b3", "class": "0x020000"})
    assert sysfs.has_display_device("0x10de", tmp_path)
    assert not sysfs.has_display_device("0x15b3", tmp_path)
