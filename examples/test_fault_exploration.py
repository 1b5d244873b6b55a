"""Fault exploration: a guest with several requests in flight, a controller a qcow2 image, and all goes wrong.

    pytest test_fault_exploration.py --e2k-schedules 200 -n 2

Each schedule is one test. What fails is written to a file; the report says how to replay and how to shrink it.
"""

import pytest

import e2kdisk
from e2kdisk.lab.rig import Rig
from e2kdisk.lab.scenario import Scenario
from e2kdisk.machine.bundled import find_guest


class Writer(Scenario):
    """e2kdisk's own test guest writes a pattern, reads it back, flushes and says PASS. Put yours in its place."""

    def build(self):
        """Once in a process: the machine, with its disks in memory. (Firmware that boots long is booted here.)"""
        image = self.directory / "disk.qcow2"
        e2kdisk.create(image, 4 << 20, cluster_size=4096)
        with e2kdisk.open_disk(image, format="qcow2") as disk:
            disk.pwrite(0, b"e2kdisk-guest first=8 sectors=32 inflight=4 rounds=2 wait=interrupt".ljust(512, b"\0"))
        return Rig("virt-arm64", find_guest("virt-arm64"), [image], ram=16 << 20, format="qcow2")

    def act(self, rig):
        """Each run, from the same beginning. Contracts of controller and image are watched besides what we assert."""
        rig.machine.run(max_instructions=50_000_000)
        said = rig.machine.console.transcript
        if not rig.traffic.is_cut:  # without power the guest has said nothing
            assert ("FAIL" if rig.traffic.faults else "PASS") in said, f"the guest says {said[-80:]!r}"

    def revive(self, rig):
        """After a power cut, once the image has been checked and what was flushed has been found: still a disk?"""
        self.act(rig)


def test_any_latency_any_order_of_completions(schedule):
    schedule.run(Writer)


def test_a_guest_hears_of_each_error(faults):
    faults.run(Writer)


@pytest.mark.e2k_faults("power", schedules=20)
def test_the_power_fails_at_any_write(faults):
    faults.run(Writer)
