"""Debian's unmodified U-Boot finds the PCI bus of virt-arm64, places the regions, and boots from virtio over PCI."""

import pytest

from e2kdisk import Machine
from e2kdisk.devices.pci import PciFunction
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.pci_host import DEVICES
from tests.pci_lab import make_function
from tests.uboot import BIG_SIZE, assert_filesystems_clean, golden, loaded_crc, partition, read_back, uboot

__all__ = ["golden"]

slow = pytest.mark.slow
# One of each test in the fast tier.
MODERN, LEGACY = (2, ("0x1af4", "0x1042"), "virtio-pci.m"), (1, ("0x1af4", "0x1001"), "virtio-pci.l")
NAMES = ("version", "ids", "driver")


@pytest.mark.parametrize(NAMES, [MODERN, pytest.param(*LEGACY, marks=slow)], ids=["modern", "legacy"])
def test_uboot_finds_the_disk_on_the_pci_bus_and_loads_64_mib(golden, make_image, assert_clean, version, ids, driver):
    overlay = make_image(backing=golden.qcow2)
    with uboot("arm64", f"{overlay},if=virtio-pci", virtio_version=version) as machine:
        command = machine.console.command
        command("pci enum")
        listing = [line.split()[:3] for line in command("pci").splitlines()]
        assert ["00.00.00", "0x1b36", "0x0008"] in listing
        assert ["00.01.00", *ids] in listing
        bars = command("pci bar 0.1.0")
        assert "MEM" in bars and "Prefetchable" in bars and ("I/O" in bars or "IO" in bars) == (version == 1)
        assert "Capacity: 160.0 MB" in command("virtio scan; virtio info")
        assert driver in command("dm tree")
        assert loaded_crc(machine, "arm64", "big.bin", 1) == (BIG_SIZE, golden.big_crc)
    assert_clean(overlay)


@pytest.mark.parametrize(NAMES, [LEGACY, pytest.param(*MODERN, marks=slow)], ids=["legacy", "modern"])
def test_what_uboot_writes_over_pci_is_on_the_disk(golden, make_image, assert_clean, tmp_path, version, ids, driver):
    overlay = make_image(backing=golden.qcow2)
    with uboot("arm64", f"{overlay},if=virtio-pci", virtio_version=version) as machine:
        command = machine.console.command
        command("pci enum; virtio scan")
        assert loaded_crc(machine, "arm64", "small.txt", 1)[0] > 0
        assert "bytes written" in command("fatwrite virtio 0:1 0x44000000 copy.txt 0x15")
    assert_clean(overlay)
    raw = read_back(overlay, tmp_path)
    assert_filesystems_clean(raw)
    assert b"Hello from the disk.\n" in partition(raw, 1).read_bytes()[1 << 20 :]


def test_disks_over_mmio_and_pci_stand_beside_each_other(make_image, golden):
    images = [make_image(f"{size}M") for size in (3, 5, 7)]
    kinds = ("virtio-pci", "virtio", "virtio-pci")
    with uboot("arm64", *(f"{image},if={kind}" for image, kind in zip(images, kinds, strict=True))) as machine:
        machine.console.command("pci enum")
        said = machine.console.command("virtio scan; virtio info")
        assert [said.count(f"Capacity: {size}.0 MB") for size in (3, 5, 7)] == [1, 1, 1]


def test_a_saved_machine_goes_on_with_its_disk_on_pci(golden, make_image):
    drive = f"{make_image(backing=golden.qcow2)},if=virtio-pci"
    with uboot("arm64", drive) as machine:
        machine.console.command("pci enum; virtio scan")
        expected = loaded_crc(machine, "arm64", "small.txt", 1)
        state = machine.save()
    with uboot("arm64", drive) as other:  # whose U-Boot has not looked at the bus
        other.load(state)
        assert loaded_crc(other, "arm64", "small.txt", 1) == expected


def test_the_bus_is_full_after_31_disks():
    with Machine("virt-arm64", bios=b"\0" * 4) as machine:
        for number in range(1, DEVICES):
            assert machine.board.plug(make_function(f"f{number}")) == number
        with pytest.raises(UsageError, match="all are taken"):
            machine.board.plug(make_function("one more"))


def test_the_pins_of_the_slots_reach_the_interrupt_controller_by_the_usual_rotation():
    with Machine("virt-arm64", bios=b"\0" * 4) as machine:
        functions = [make_function(f"f{number}", interrupt_pin=1) for number in range(5)]
        for function in functions:
            machine.board.plug(function)
        pending = machine.board.bus.devices[0x0800_0000]

        def wires():
            """SPI 3 to 6 of the distributor, as a guest reads them from GICD_ISPENDR."""
            return pending.read(0x200 + 4, 4) >> 3 & 15

        assert wires() == 0
        for slot, function in enumerate(functions, 1):
            function.set_intx(True)
            assert wires() == 1 << slot % 4
            function.set_intx(False)
        functions[0].set_intx(True)  # slots 1 and 5 share a wire
        functions[4].set_intx(True)
        functions[0].set_intx(False)
        assert wires() == 2


def test_the_device_tree_tells_of_the_same_rotation():
    with Machine("virt-arm64", bios=b"\0" * 4) as machine:
        node = next(iter(machine.board.pci.node([[0, 3 + wire, 4] for wire in range(4)], 2).values()))
    entries = [node["interrupt-map"][start : start + 10] for start in range(0, 160, 10)]
    assert len(entries) == 16
    for address, _, _, pin, phandle, _, _, kind, spi, flags in entries:
        assert (phandle, kind, flags) == (2, 0, 4)
        assert spi == 3 + ((address >> 11) + pin - 1) % 4


def test_a_reset_of_the_machine_takes_the_regions_away(make_image):
    with Machine("virt-arm64", bios=b"\0" * 4, drives=[f"{make_image('1M')},if=virtio-pci"]) as machine:
        function = machine.board.pci.pci.functions[8]
        assert isinstance(function, PciFunction)
        ecam = machine.board.bus.devices[0x40_1000_0000]
        ecam.write(0x8000 + 0x20, 4, 0x1000_0000)
        ecam.write(0x8000 + 4, 2, 6)
        window = machine.board.bus.devices[0x1000_0000]
        assert window.read(0x12, 2) == 1  # one queue
        machine.reset()
        assert window.read(0x12, 2) == 0xFFFF
