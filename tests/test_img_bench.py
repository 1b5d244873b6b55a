"""What qemu-img's bench promises of its requests: so many in flight, flushes between them, where they go."""

from types import SimpleNamespace

import pytest

from e2kdisk.aio import Scheduler, VirtualClock
from e2kdisk.block.memory import MemoryNode
from e2kdisk.tools.img.bench_command import Bench, Plan

SIZE = 4096
DEFAULTS = {"offset": 0, "size": SIZE, "interval": 0, "drain": True, "pattern": 0, "writing": False}


class BusyNode(MemoryNode):
    """Memory whose n-th request takes n % 3 + 1 milliseconds; notes what happened."""

    def __init__(self):
        super().__init__(Scheduler(VirtualClock()), 64 * SIZE)
        self.offsets, self.most, self.now = [], 0, 0
        self.flushed_with = []
        """Requests in flight at each flush."""

    async def _request(self, offset, iov):
        self.offsets.append(offset)
        self.now += 1
        self.most = max(self.most, self.now)
        delay = (len(self.offsets) % 3 + 1) * 1_000_000
        await self.scheduler.sleep_until(self.scheduler.clock.now_ns() + delay)
        self.now -= 1

    read = write = _request

    async def flush(self):
        self.flushed_with.append(self.now)


def bench(**plan):
    node = BusyNode()
    options = DEFAULTS | plan
    options.setdefault("step", options["size"])
    node.scheduler.run(Bench(SimpleNamespace(node=node, size=node.size), Plan(**options)).run())
    assert node.now == 0
    return node


@pytest.mark.parametrize(("count", "depth"), [(100, 1), (100, 7), (5, 64), (0, 4)])
def test_as_many_requests_are_in_flight_as_the_depth_says(count, depth):
    node = bench(requests=count, depth=depth)
    assert (len(node.offsets), node.most) == (count, min(count, depth))


def test_a_flush_waits_until_all_requests_before_it_are_answered():
    node = bench(requests=100, depth=4, interval=10, writing=True)
    assert node.flushed_with == [0] * 10
    assert node.most == 4


def test_without_draining_a_flush_goes_between_the_others():
    node = bench(requests=100, depth=4, interval=10, writing=True, drain=False)
    assert len(node.flushed_with) >= 10
    assert max(node.flushed_with) > 0


def test_offsets_go_in_steps_from_the_offset_and_begin_again_before_the_end():
    node = bench(requests=6, depth=1, offset=SIZE, step=24 * SIZE)
    assert [offset // SIZE for offset in node.offsets] == [1, 25, 49, 10, 34, 58]


def test_the_first_error_ends_it_when_the_others_have_ended():
    with pytest.raises(OSError, match="Input/output error"):
        bench(requests=3, depth=2, offset=64 * SIZE)
