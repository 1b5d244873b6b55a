"""Virtio over PCI as a driver meets it: both generations, pin and messages, mastership of the bus."""

import random

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.open import open_disk
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from e2kdisk.devices.pci import WiredOr
from e2kdisk.devices.virtio import VirtioBlk, VirtioPci
from e2kdisk.devices.virtio.features import ERA_MASK, bit, mask
from e2kdisk.errors import UsageError
from tests.virtio_driver import IN, OK, Driver, contents, make_disk
from tests.virtio_links import NO_VECTOR, MsixLink, OurHost, PciFunctionLink, PciLegacyLink, PciModernLink

generations = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
SLOT = 3 << 3
MASTER = 4


class PciDriver(Driver):
    """A Driver that is always on PCI, and its messages."""

    transport = "pci"

    @property
    def function(self):
        return self.link.function

    @property
    def messages(self):
        return self.link.host.messages

    def command(self, value):
        self.function.set(4, value, 2)

    def use_messages(self, *, vectors=(0, 1)):
        """Go over to MSI-X and come up again."""
        msix = MsixLink(self.function)
        for vector in range(msix.vectors):
            msix.set_vector(vector, 0x1000_0000 + 16 * vector, 0x60 + vector)
        msix.control(enable=True)
        self.link.vectors = vectors
        self.init()
        return msix


CONFIG_MESSAGE, QUEUE_MESSAGE = (0x1000_0000, 0x60), (0x1000_0010, 0x61)


# -- who it is --------------------------------------------------------------------------------------


def test_a_modern_device_has_no_legacy_registers():
    host = OurHost()
    device = VirtioPci(VirtioBlk(make_disk()), transitional=False)
    device.connect(RamMemory(), IrqLine())
    host.bus.add(SLOT, device)
    function = PciFunctionLink(host, SLOT)
    assert function.get(0) == 0x1042_1AF4
    assert function.get(8, 1) == 1
    assert list(function.bars) == [1, 4]
    link = PciModernLink(host, SLOT)
    assert link.offered() & bit("VERSION_1")


def test_a_device_without_vectors_has_no_msix():
    host = OurHost()
    device = VirtioPci(VirtioBlk(make_disk()), vectors=0)
    host.bus.add(SLOT, device)
    function = PciFunctionLink(host, SLOT)
    assert 1 not in function.bars
    assert {kind for kind, _ in function.capabilities()} == {9}
    link = PciModernLink(host, SLOT)
    link.set(1, 0x10, 2, 0)
    assert link.get(1, 0x10, 2) == NO_VECTOR


def test_a_kind_without_a_transitional_id_is_modern_only():
    device = VirtioBlk(make_disk())
    device.device_id = 40
    with pytest.raises(UsageError, match="no transitional device"):
        VirtioPci(device)
    assert VirtioPci(device, transitional=False).read(0, 4) == 0x1068_1AF4


def test_each_generation_is_offered_its_features_by_the_same_device():
    driver = PciDriver(make_disk(), init=False)
    modern, legacy = driver.link, PciLegacyLink(driver.link.host, SLOT)
    offered = driver.device.offer()
    assert modern.offered() == offered & ERA_MASK[False]
    assert legacy.offered() == offered & ERA_MASK[True]
    assert modern.offered() & mask("VERSION_1", "RING_RESET") == mask("VERSION_1", "RING_RESET")


@generations
def test_the_configuration_space_reads_the_same_at_every_width(legacy):
    driver = PciDriver(make_disk(), legacy=legacy)
    expected = Driver(make_disk(), transport="mmio")
    end = 96 if legacy else 0x100
    for width in (1, 2, 4):
        for offset in range(0, end, width):
            assert driver.config(offset, width) == expected.config(offset, width)


def test_the_legacy_configuration_moves_when_messages_are_switched_on():
    driver = PciDriver(make_disk(), legacy=True)
    msix = MsixLink(driver.function)
    capacity = [driver.function.load(0, offset, 4) for offset in (20, 24)]
    assert capacity == [2048, 0]
    msix.control(enable=True)
    assert [driver.function.load(0, offset, 2) for offset in (20, 22)] == [NO_VECTOR, NO_VECTOR]
    assert driver.function.load(0, 24, 4) == 2048
    msix.control(enable=False)
    assert driver.function.load(0, 20, 4) == 2048


# -- generations do not mix -------------------------------------------------------------------------


def test_registers_of_the_other_generation_do_nothing_while_the_device_is_in_use():
    driver = PciDriver(make_disk())
    legacy = PciLegacyLink(driver.link.host, SLOT)
    before = driver.features
    legacy.accept(0)
    legacy.set_status(1)
    legacy.set(0x08, 4, 0)
    assert driver.device.features == before
    assert len(driver.trace.guest_errors) == 3
    assert "other generation" in driver.trace.guest_errors[-1]
    assert driver.read(0, 1) == contents(driver.disk)[:512]


@pytest.mark.parametrize("first", [True, False], ids=["legacy first", "modern first"])
def test_a_reset_by_either_generation_hands_the_device_over(first):
    driver = PciDriver(make_disk(), legacy=first)
    driver.write(5, b"a" * 512)
    host = driver.link.host
    driver.legacy = not first
    driver.link = (PciModernLink if first else PciLegacyLink)(host, SLOT)
    driver.init()
    assert driver.read(5, 1) == b"a" * 512
    assert driver.device.legacy != first


# -- messages ---------------------------------------------------------------------------------------


@generations
def test_messages_take_the_place_of_the_pin(legacy):
    driver = PciDriver(make_disk(), legacy=legacy)
    driver.use_messages()
    driver.interrupts = 0
    driver.read(0, 1)
    assert driver.messages == [QUEUE_MESSAGE]
    driver.disk.resize(2 << 20)
    assert driver.messages == [QUEUE_MESSAGE, CONFIG_MESSAGE]
    assert driver.interrupts == 0


@generations
def test_a_queue_without_a_vector_does_not_interrupt(legacy):
    driver = PciDriver(make_disk(), legacy=legacy)
    driver.use_messages(vectors=(NO_VECTOR, NO_VECTOR))
    driver.read(0, 1)
    driver.disk.resize(2 << 20)
    assert driver.messages == []
    assert not driver.irq.level


def test_reasons_that_wait_when_messages_are_switched_off_drive_the_pin():
    driver = PciDriver(make_disk())
    msix = driver.use_messages()
    driver.start(IN, 0, length=512)
    driver.kick()
    assert not driver.irq.level
    msix.control(enable=False)
    assert driver.irq.level
    msix.control(enable=True)
    assert not driver.irq.level


def test_a_reset_forgets_vectors_and_what_was_pending():
    for reset in (lambda driver: driver.set_status(0), lambda driver: driver.controller.reset()):
        driver = PciDriver(make_disk())
        msix = driver.use_messages()
        msix.mask(1, True)
        driver.start(IN, 0, length=512)
        driver.kick()
        assert msix.pending() == 2
        reset(driver)
        driver.link.power_on()
        msix.control(enable=True)
        msix.mask(1, False)
        assert msix.pending() == 0
        assert [driver.link.get(1, offset, 2) for offset in (0x10, 0x1A)] == [NO_VECTOR, NO_VECTOR]
        assert driver.messages == []


def test_a_message_of_a_masked_vector_survives_save_and_load():
    driver = PciDriver(make_disk())
    driver.use_messages().mask(1, True)
    driver.start(IN, 0, length=512)
    driver.kick()
    twin = PciDriver(driver.disk, init=False)
    twin.controller.connect(driver.memory, twin.irq)
    twin.controller.load(driver.controller.save())
    assert twin.messages == []
    MsixLink(twin.function).mask(1, False)
    assert twin.messages == [QUEUE_MESSAGE]


@generations
def test_a_state_goes_on_in_a_device_that_no_firmware_has_touched(legacy):
    driver = PciDriver(make_disk(), legacy=legacy)
    driver.read(0, 1)
    twin = VirtioPci(VirtioBlk(driver.disk))
    host = OurHost()
    host.bus.add(SLOT, twin)
    twin.connect(driver.memory, driver.irq)
    twin.load(driver.controller.save())
    driver.controller, driver.device = twin, twin.device
    driver.link.function.host = host  # the driver knows nothing of it: its regions are where they were
    assert driver.read(3, 1) == contents(driver.disk)[3 * 512 : 4 * 512]
    assert driver.interrupts == 2


def test_a_board_that_takes_no_messages_loses_them_and_nothing_else():
    driver = PciDriver(make_disk())
    driver.link.host.bus.on_message = None
    driver.use_messages()
    assert driver.read(0, 1)


# -- the pin ----------------------------------------------------------------------------------------


@generations
def test_reading_the_isr_clears_it_and_releases_the_pin(legacy):
    driver = PciDriver(make_disk(), legacy=legacy)
    driver.start(IN, 0, length=512)
    driver.kick()
    assert driver.function.get(6, 2) & 8
    assert driver.irq.level
    assert driver.link.take_reasons() == 1
    assert not driver.irq.level
    assert not driver.function.get(6, 2) & 8
    assert driver.link.take_reasons() == 0


def test_two_disks_share_a_wire_until_both_are_served():
    host, levels = OurHost(), []
    wire = WiredOr(IrqLine(levels.append))
    drivers = []
    for slot in (3, 7):  # the same wire after the usual rotation
        driver = PciDriver(make_disk(), init=False)
        driver.controller.reset()  # forgets where its first bus had its regions
        driver.controller.connect(driver.memory, wire.line())
        host.bus.add(slot << 3, driver.controller)
        driver.link = PciModernLink(host, slot << 3)
        driver.init()
        drivers.append(driver)
    for driver in drivers:
        driver.start(IN, 1, length=512)
        driver.kick()
    assert levels == [True]
    drivers[0].collect()
    assert levels == [True]
    drivers[1].collect()
    assert levels == [True, False]


# -- mastership of the bus --------------------------------------------------------------------------


@generations
def test_without_bus_mastering_requests_wait_and_are_served_when_it_comes(legacy):
    driver = PciDriver(make_disk(), legacy=legacy)
    driver.command(3)
    before = bytes(driver.ram)
    pending = driver.start(IN, 3, length=512)
    offered = bytes(driver.ram)
    driver.notify()
    assert driver.ram == offered != before
    assert driver.interrupts == 0
    driver.command(3 | MASTER)
    driver.wait(pending)
    assert driver.result(pending).status == OK
    assert driver.interrupts == 1


def test_what_is_in_flight_ends_before_mastership_is_gone(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"q" * (64 * 512))
    chance = random.Random(3)
    engine = SimulatedEngine(Scheduler(), lambda pending: chance.randrange(len(pending)))
    with open_disk(path, format="raw", engine=engine) as disk:
        driver = PciDriver(disk)
        requests = [driver.start(IN, sector, length=512) for sector in range(8)]
        driver.kick()
        assert len(driver.device.queues[0].in_flight) == 8
        driver.command(3)
        after = bytes(driver.ram)
        assert not driver.device.queues[0].in_flight
        while disk.scheduler.wait(0):
            pass
        assert driver.ram == after
        assert sorted(driver.collect(), key=lambda one: one.head) == sorted(requests, key=lambda one: one.head)
        driver.set_status(0)


def test_a_broken_or_unready_device_stays_so_when_mastership_comes():
    driver = PciDriver(make_disk())
    driver.offer(999)
    driver.notify()
    driver.command(3)
    driver.command(3 | MASTER)
    assert driver.broken
    driver.set_status(0)
    driver.command(3)
    driver.command(3 | MASTER)
    assert driver.status == 0


# -- queues -----------------------------------------------------------------------------------------


def test_a_queue_reset_takes_it_back_to_its_beginning():
    driver = PciDriver(make_disk(), size=16)
    driver.use_messages()
    driver.read(0, 1)
    driver.link.stop_queue()
    assert driver.link.get(1, 0x3A, 2) == 0
    assert driver.link.get(1, 0x1C, 2) == 0
    assert driver.link.get(1, 0x18, 2) == 256
    assert driver.link.get(1, 0x1A, 2) == NO_VECTOR
    driver.notify()
    driver._size = 64
    driver._init_queue()
    assert driver.size == 64
    assert driver.read(7, 1) == contents(driver.disk)[7 * 512 : 8 * 512]


def test_a_queue_reset_needs_the_feature_and_enable_takes_only_one():
    driver = PciDriver(make_disk(), without=("RING_RESET",))
    driver.link.stop_queue()
    assert "without the feature" in driver.trace.guest_errors[-1]
    driver.link.set(1, 0x1C, 2, 0)
    assert "something else than 1" in driver.trace.guest_errors[-1]
    assert driver.read(0, 1)


def test_registers_of_a_queue_that_does_not_exist_do_nothing():
    driver = PciDriver(make_disk())
    driver.link.set(1, 0x16, 2, 7)
    for offset, width in ((0x18, 2), (0x1A, 2), (0x1C, 2), (0x20, 4), (0x24, 4), (0x3A, 2)):
        driver.link.set(1, offset, width, 1)
        assert driver.link.get(1, offset, width) in (0, NO_VECTOR)
    driver.notify(7)
    assert "no such queue" in driver.trace.guest_errors[-1]
    assert driver.read(0, 1)


def test_a_wide_store_is_two_of_32_bits():
    driver = PciDriver(make_disk(), init=False)
    driver.link.set(1, 0x20, 8, 0x1_2345_6780)
    assert driver.link.get(1, 0x20, 8) == 0x1_2345_6780
    assert driver.link.get(1, 0x24, 4) == 1


def test_a_store_of_a_wrong_width_is_a_mistake_and_does_nothing():
    driver = PciDriver(make_disk())
    errors = len(driver.trace.guest_errors)
    driver.link.set(1, 0x14, 4, 0)  # would reset the device
    driver.link.set(1, 0x18, 1, 0)
    driver.link.set(1, 0x12, 2, 0)
    driver.link.set(1, 0x3C, 4, 0)
    assert driver.link.get(1, 0x14, 2) == 0
    assert len(driver.trace.guest_errors) == errors + 5
    assert driver.status == 15


# -- the access window (VIRTIO 1.2 4.1.4.9) -----------------------------------------------------------


def window_of(driver):
    at = driver.function.capabilities()[4][1]
    assert driver.function.get(at + 3, 1) == 5

    def aim(bar, offset, length):
        driver.function.set(at + 4, bar, 1)
        driver.function.set(at + 8, offset)
        driver.function.set(at + 12, length)
        return at + 16

    return aim


def test_the_access_window_works_without_any_region_being_placed():
    driver = PciDriver(make_disk(), init=False)
    driver.command(0)
    aim = window_of(driver)
    data = aim(4, 0x12, 2)
    assert driver.function.get(data, 2) == 1
    data = aim(4, 0x14, 1)
    driver.function.set(data, 1, 1)
    assert driver.device.status == 1
    data = aim(0, 0x12, 1)
    assert driver.function.get(data, 1) == 1


NOWHERE = [(4, 0, 0), (4, 0, 3), (4, 0, 8), (4, 0x2001, 2), (4, 0x4000, 1), (4, 0xFFFFFFFE, 2), (2, 0, 1), (255, 0, 4)]


@pytest.mark.parametrize("aim", NOWHERE)
def test_an_access_window_that_points_nowhere_is_a_mistake(aim):
    driver = PciDriver(make_disk())
    data = window_of(driver)(*aim)
    before = driver.function.get(data)
    driver.function.set(data, 0)
    assert before == 0
    assert len(driver.trace.guest_errors) == 2
    assert driver.read(0, 1)


# -- traces -----------------------------------------------------------------------------------------


def test_every_register_has_its_name_in_traces():
    driver = PciDriver(make_disk())
    modern, legacy, msix = (driver.controller.bars[index].registers for index in (1, 0, 2))
    names = [modern.register_name(offset) for offset in (0x14, 0x20, 0x1000, 0x2000, 0x3000, 0x0FF0, 0x1FF0)]
    assert names == ["device_status", "queue_desc_low", "isr", "capacity", "notify 0", "", ""]
    assert [legacy.register_name(offset) for offset in (0x10, 0x14)] == ["QueueNotify", "capacity"]
    assert msix.register_name(16) == "vector 1 address"
    assert driver.controller.register_name(0x04) == "Command"
    assert {region.name for region in (modern, legacy, msix)} == {"virtio-blk"}


def test_state_of_another_kind_is_refused():
    state = PciDriver(make_disk()).controller.save()
    modern = VirtioPci(VirtioBlk(make_disk()), transitional=False)
    modern.connect(RamMemory(), IrqLine())
    with pytest.raises(ValueError, match="another transport"):
        modern.load(state)
