"""Any sequence of commands, resets, saves and errors beside a model of the disk: what is read is what was written."""

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.open import open_disk
from e2kdisk.qcow2.create import create
from tests.ata_driver import (
    BSY,
    BUFFER,
    DRDY,
    DRQ,
    DSC,
    ERR,
    IDNF,
    INTERRUPT,
    SRST,
    Ide,
    Pc,
    make_disk,
    prds,
)

SECTORS = 256
OK = DRDY | DSC

lbas = st.integers(0, SECTORS + 3)
counts = st.integers(1, 20)
units = st.integers(0, 1)
wides = st.booleans()


def data_for(number, count):
    return b"".join(b"%07d.%07d," % (number, sector) * 32 for sector in range(count))


class AtaMachine(RuleBasedStateMachine):
    """Two drives of one channel; the model is two byte arrays and what SET MULTIPLE MODE said."""

    def build(self):
        first = make_disk(SECTORS)
        return [first, make_disk(SECTORS, scheduler=first.scheduler)]

    @initialize()
    def power_on(self):
        self.disks = self.build()
        self.model = [bytearray(disk.pread(0, SECTORS * 512)) for disk in self.disks]
        self.multiple = [0, 0]
        self.number = 0
        self.ide = Ide(Pc(*self.disks))

    def select(self, unit):
        self.ide.select(unit)
        return self.ide

    def expected(self, unit, lba, count):
        return bytes(self.model[unit][lba * 512 : min(SECTORS, lba + count) * 512])

    def ended(self, lba, count):
        """The status after a command for these sectors."""
        status = self.ide.status
        if lba + count > SECTORS:
            assert (status, self.ide.error) == (DRDY | ERR, IDNF)
        else:
            assert status == OK

    @rule(unit=units, lba=lbas, count=counts, wide=wides, multiple=st.booleans())
    def read_pio(self, unit, lba, count, wide, multiple):
        block = self.multiple[unit] if multiple else 1
        opcode = {(False, False): 0x20, (True, False): 0x24, (False, True): 0xC4, (True, True): 0x29}[wide, multiple]
        found = self.select(unit).pio_in(opcode, lba, count, block=block or 1, wide=wide)
        if not block:
            assert self.ide.status == DRDY | ERR and not found
            return
        whole = count if lba + count <= SECTORS else max(0, SECTORS - lba) // block * block
        assert found == self.expected(unit, lba, whole)
        self.ended(lba, count)

    @rule(unit=units, lba=lbas, count=counts, wide=wides, multiple=st.booleans())
    def write_pio(self, unit, lba, count, wide, multiple):
        block = self.multiple[unit] if multiple else 1
        opcode = {(False, False): 0x30, (True, False): 0x34, (False, True): 0xC5, (True, True): 0x39}[wide, multiple]
        data = self.fresh(count)
        status = self.select(unit).pio_out(opcode, data, lba, block=block or 1, wide=wide)
        if not block:
            assert status == DRDY | ERR
            return
        whole = count if lba + count <= SECTORS else max(0, SECTORS - lba) // block * block
        self.model[unit][lba * 512 : (lba + whole) * 512] = data[: whole * 512]
        assert status == (OK if whole == count else DRDY | ERR)

    def fresh(self, count):
        self.number += 1
        return data_for(self.number, count)

    @rule(unit=units, lba=lbas, count=counts, wide=wides, cut=st.integers(1, 511))
    def read_dma(self, unit, lba, count, wide, cut):
        table = prds((BUFFER, 2 * cut), (BUFFER + 0x4000, 512 * count)) if count > 1 else prds((BUFFER + 0x4000, 512))
        found = self.select(unit).dma(0x25 if wide else 0xC8, lba, count, table, wide=wide)
        if lba + count > SECTORS:
            assert found[1] == DRDY | ERR
            return
        assert found[0] & INTERRUPT and found[1] == OK
        split = 2 * cut if count > 1 else 0
        data = self.ide.bench.read(BUFFER, split) + self.ide.bench.read(BUFFER + 0x4000, 512 * count - split)
        assert data == self.expected(unit, lba, count)

    @rule(unit=units, lba=lbas, count=counts, wide=wides, short=st.booleans())
    def write_dma(self, unit, lba, count, wide, short):
        data = self.fresh(count)
        self.ide.bench.write(BUFFER, data)
        table = prds((BUFFER, len(data) - 2 * short))
        found = self.select(unit).dma(0x35 if wide else 0xCA, lba, count, table, to_memory=False, wide=wide)
        if lba + count > SECTORS:
            assert found[1] == DRDY | ERR
        elif short:
            assert found == (0, OK)
        else:
            assert found == (INTERRUPT, OK)
            self.model[unit][lba * 512 : (lba + count) * 512] = data

    @rule(unit=units, count=st.sampled_from((0, 1, 2, 4, 8, 16, 3, 32)))
    def set_multiple(self, unit, count):
        status = self.select(unit).call(0xC6, 0, count)
        assert status == (OK if count not in (3, 32) else DRDY | ERR)
        if status == OK:
            self.multiple[unit] = count

    @rule(unit=units, opcode=st.sampled_from((0xE7, 0xEA, 0xE5, 0x10, 0xF8)))
    def no_data(self, unit, opcode):
        assert self.select(unit).call(opcode) == OK

    @rule(unit=units, lba=lbas, count=counts)
    def verify(self, unit, lba, count):
        self.select(unit).command(0x40, lba, count)
        self.ide.wait()
        self.ended(lba, count)

    @rule(unit=units, opcode=st.sampled_from((0x20, 0x30, 0xC8, 0xEC)), blocks=st.integers(0, 600))
    def leave_in_the_middle_and_reset(self, unit, opcode, blocks):
        """A read ends anywhere; a write has written the blocks that were whole."""
        data = self.fresh(4)
        self.select(unit).command(opcode, 8, 4)
        if opcode == 0x30:
            for at in range(0, 2 * blocks, 2):
                self.ide.wait()
                self.ide.bench.outw(self.ide.base, int.from_bytes(data[at : at + 2], "little"))
            whole = min(2 * blocks, len(data)) // 512 * 512
            self.model[unit][8 * 512 : 8 * 512 + whole] = data[:whole]
        else:
            for _ in range(blocks):
                self.ide.wait()
                self.ide.bench.inw(self.ide.base)
        self.ide.set_control(SRST)
        self.ide.set_control(0)
        assert self.ide.registers() == (OK, 1, 1, 1, 0, 0, 0xA0)

    @rule()
    def save_and_load(self):
        pc = self.ide.bench
        state = json.loads(json.dumps(pc.ide.save()))
        twin = Pc(*self.disks)
        twin.ram[:] = pc.ram
        twin.ide.load(state)
        self.ide = Ide(twin, setup=False)

    @invariant()
    def idle(self):
        if hasattr(self, "ide"):
            assert not self.ide.alternate & (BSY | DRQ)

    def teardown(self):
        if hasattr(self, "ide"):
            for disk, model in zip(self.disks, self.model, strict=True):
                assert disk.pread(0, SECTORS * 512) == model


class LateAtaMachine(AtaMachine):
    """The same on qcow2 images whose every system call comes late, in an order by chance."""

    def build(self):
        import random
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        chance = random.Random(1)
        engine = SimulatedEngine(Scheduler(), lambda pending: chance.randrange(len(pending)))
        disks = []
        for number in (0, 1):
            path = f"{self.directory.name}/{number}.qcow2"
            create(path, SECTORS * 512, cluster_size=4096)
            disks.append(open_disk(path, engine=engine))
        return disks

    @rule(lba=st.integers(0, SECTORS - 8), reset=st.booleans())
    def write_dma_and_do_not_wait(self, lba, reset):
        """Whether it is reset or left alone, what was begun is whole."""
        data = self.fresh(8)
        self.ide.bench.write(BUFFER, data)
        self.select(0).set_table(prds((BUFFER, len(data))))
        self.ide.start(to_memory=False)
        self.ide.command(0xCA, lba, 8)
        assert self.ide.alternate & BSY
        if reset:
            self.ide.set_control(SRST)
            self.ide.set_control(0)
        self.ide.wait()
        self.ide.stop()
        self.model[0][lba * 512 : (lba + 8) * 512] = data

    def teardown(self):
        super().teardown()
        if hasattr(self, "ide"):
            for disk in self.disks:
                disk.close()
            self.directory.cleanup()


TestAtaMachine = AtaMachine.TestCase
TestAtaMachine.settings = settings(max_examples=40, stateful_step_count=30)
TestLateAtaMachine = pytest.mark.slow(LateAtaMachine.TestCase)
TestLateAtaMachine.settings = settings(max_examples=40, stateful_step_count=20)
