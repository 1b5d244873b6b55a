"""Random accesses to everything on the Elbrus board: answered, whatever they are, and the machine goes on."""

import random

import pytest

import e2kdisk
from e2kdisk.machine.machine import StopReason
from tests.elbrus_lab import CONFIG, PORTS, elbrus, function, load, store

pytestmark = pytest.mark.guest

IO = 6
DEVICES = [(0, 0), (1, 0), (2, 1), (2, 2), (3, 0), (4, 0), (0x0C, 0)]
INTERESTING = (0, 1, 2, 4, 6, 7, 0x20, 0x25, 0x35, 0xC8, 0xEC, 0xFF, 0x1F0, 0x8000_0000, 0xFFFF_FFFF)


def places(chance):
    """(address, MAS) of something that is there, or next to it."""
    device = chance.choice(DEVICES)
    return chance.choice(
        (
            (function(*device) + chance.randrange(256), 0),
            (CONFIG + chance.randrange(1 << 28), 0),
            (PORTS + chance.choice((0x1F0, 0x170, 0xC000, 0xC100, 0xCF8)) + chance.randrange(16), IO),
            (PORTS + chance.choice((0x3F6, 0x376, chance.randrange(1 << 16))), IO),
            (0x8000_1000 + chance.randrange(8), 0),
            (0x9000_0000 + chance.randrange(0x5000), 0),
            (0x8000_0000 + chance.randrange(0x7EC0_0000), 0),
            (0xFEC0_0000 + chance.choice((0, 0x10, 0x40, chance.randrange(0x20_0000))), 0),
            (0xFEE0_0000 + chance.choice((0xB0, 0xF0, 0xFF0, chance.randrange(0x10_0000))), 0),
            (0x1_1000_0000 + chance.choice((0x40, 0x380, chance.randrange(0x10_0000))), 0),
        )
    )


def set_up(machine):
    """Regions where the random accesses will find them."""
    for device, bar, value in ((3, 4, 0xC000), (4, 0, 0xC100), (4, 1, 0x9000_8000), (4, 4, 0x9000_0000)):
        store(machine, function(device) + 0x10 + 4 * bar, value)
    for device in (3, 4):
        store(machine, function(device) + 4, 7, 2)


@pytest.mark.parametrize(
    ("seed", "accesses"),
    [*((seed, 10_000) for seed in range(3)), *(pytest.param(s, 200_000, marks=pytest.mark.slow) for s in range(3, 6))],
)
def test_no_access_stops_the_machine(tmp_path, seed, accesses):
    chance = random.Random(seed)
    paths = [tmp_path / "ide.qcow2", tmp_path / "virtio.qcow2"]
    for path in paths:
        e2kdisk.create(path, 1 << 20)
    drives = [f"file={path},if={kind}" for path, kind in zip(paths, ("ide", "virtio"), strict=True)]
    with elbrus(drives=drives, ram=16 << 20) as machine:
        set_up(machine)
        for number in range(accesses):
            if number % 1000 == 0:
                set_up(machine)
            address, mas = places(chance)
            size = chance.choice((1, 1, 2, 4, 4, 8))
            address &= -size
            if chance.random() < 0.5:
                assert 0 <= load(machine, address, size, mas) < 1 << 8 * size
            else:
                value = chance.choice(INTERESTING) if chance.random() < 0.7 else chance.getrandbits(64)
                store(machine, address, value & (1 << 8 * size) - 1, size, mas)
            if number % 64 == 0:
                machine.scheduler.settle()
        machine.board.save()
        machine.reset()
        assert machine.run() is StopReason.HALTED
    for path in paths:
        assert e2kdisk.check(path).clean
