"""Controllers that somebody else has made go where he says, and boards answer without a running CPU."""

import pytest

from e2kdisk import Machine, UsageError, VirtioBlk, VirtioMmio
from e2kdisk.devices.ata import PciIde
from e2kdisk.devices.virtio import VirtioPci
from e2kdisk.machine.boards.board import Placed
from e2kdisk.machine.boards.virt_arm64 import PCI_SPI, SPI
from e2kdisk.machine.boards.virt_riscv64 import TEST
from e2kdisk.machine.chips import sifive_test
from e2kdisk.machine.cpu.cpu import Reason
from tests.virtio_driver import make_disk


def machine(board, *placed, **options):
    controllers = [Placed(controller, place) for controller, place in placed]
    scheduler = controllers[0].controller.scheduler if controllers else None
    return Machine(board, controllers=controllers, scheduler=scheduler, **options)


def load(machine, address, size=4):
    window = next(w for w in machine.board.bus.windows() if w.base <= address < w.base + w.size)
    return window.read(address - window.base, size)


def test_slots_of_virtio_mmio_are_chosen_and_the_others_have_no_device():
    with machine("virt-arm64", (VirtioMmio(VirtioBlk(make_disk())), 31)) as arm:
        assert [load(arm, 0x0A00_3E00 + at) for at in (0, 4, 8)] == [0x7472_6976, 2, 2]
        assert [load(arm, 0x0A00_3C00 + at) for at in (0, 4, 8)] == [0x7472_6976, 2, 0]
        assert b"virtio_mmio@a003e00" in arm.board.device_tree()
        assert b"virtio_mmio@a003c00" not in arm.board.device_tree()


@pytest.mark.parametrize(
    ("board", "make", "taken"),
    [
        ("virt-arm64", lambda: VirtioMmio(VirtioBlk(make_disk())), 32),
        ("virt-arm64", lambda: VirtioPci(VirtioBlk(make_disk())), 0),
        ("virt-riscv64", lambda: VirtioMmio(VirtioBlk(make_disk())), 8),
        ("elbrus", lambda: PciIde([make_disk()]), 12),
    ],
)
def test_a_slot_that_is_not_free_is_refused(board, make, taken):
    with pytest.raises(UsageError, match=f"slot {taken}"):
        machine(board, (make(), taken))


def test_a_listener_hears_the_wires_of_the_interrupt_controller():
    disk = make_disk()
    devices = [VirtioMmio(VirtioBlk(disk)), VirtioPci(VirtioBlk(disk), vectors=0)]
    with machine("virt-arm64", (devices[0], 7), (devices[1], 4)) as arm:
        heard = []
        arm.board.irq_chip.on_input = lambda number, level: heard.append((number, level))
        devices[1].set_intx(True)
        devices[1].set_intx(False)
        assert heard == [(SPI + PCI_SPI + 0, True), (SPI + PCI_SPI + 0, False)]  # slot 4: INTA is the first wire


def test_a_message_that_no_chip_takes_is_a_store_to_ram():
    with machine("virt-arm64") as arm:
        arm.board.pci.pci.message(0x4100_0000, 0x1234_5678)
        assert arm.cpu.memory.target(0x4100_0000, 4) == b"\x78\x56\x34\x12"
        arm.board.pci.pci.message(0x10, 1)  # flash: lost


def test_a_device_can_switch_off_a_machine_that_does_not_run():
    with machine("virt-riscv64") as riscv:
        assert riscv.cpu.take_stop_reason() is None
        riscv.board.bus.windows()[0].write(TEST - riscv.board.bus.windows()[0].base, 4, sifive_test.RESET)
        assert riscv.cpu.take_stop_reason() is Reason.RESET
        assert riscv.cpu.take_stop_reason() is None


def test_controllers_of_one_name_are_refused_when_the_machine_is_saved():
    placed = [(VirtioMmio(VirtioBlk(disk)), None) for disk in [make_disk()] * 2]
    with machine("virt-arm64", *placed, ram=16 << 20) as arm, pytest.raises(UsageError, match="have the same name"):
        arm.save()
