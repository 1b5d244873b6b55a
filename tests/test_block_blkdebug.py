"""blkdebug: rules armed by events, states, breakpoints, as QEMU's driver has them."""

import errno

import pytest

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.blkdebug import BlkdebugNode, parse_config, parse_rules
from e2kdisk.block.memory import MemoryNode
from e2kdisk.block.tree import Taken
from e2kdisk.errors import UsageError


def node_with(text):
    said = []
    memory = MemoryNode(Scheduler(), 4096)
    return BlkdebugNode(memory, parse_rules(Taken("blkdebug", parse_config(text))), said.append), said


def write(node, offset=0):
    node.scheduler.run(node.write(offset, [memoryview(b"x")]))


def announce(node, event):
    node.scheduler.run(node.event(event))


def test_a_rule_strikes_only_after_its_event():
    node, _ = node_with('[inject-error]\nevent = "write_aio"\nerrno = "28"\n')
    write(node)
    announce(node, "write_aio")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            write(node)
        assert caught.value.errno == errno.ENOSPC


def test_once_is_once():
    node, _ = node_with('[inject-error]\nevent = "write_aio"\nonce = "on"\n')
    announce(node, "write_aio")
    with pytest.raises(OSError):
        write(node)
    announce(node, "write_aio")
    write(node)


def test_a_rule_without_an_event_is_armed_from_the_start():
    node, _ = node_with('[inject-error]\nsector = "1"\n')
    write(node, 0)
    with pytest.raises(OSError):
        write(node, 512)


def test_iotype_chooses_the_requests():
    node, _ = node_with('[inject-error]\niotype = "flush"\n')
    write(node)
    with pytest.raises(OSError):
        node.scheduler.run(node.flush())


def test_a_state_changes_which_rules_hold():
    node, _ = node_with(
        '[set-state]\nevent = "l2_load"\nnew_state = "2"\n# comment\n[inject-error]\nevent = "write_aio"\nstate = "2"\n'
    )
    announce(node, "write_aio")
    write(node)
    announce(node, "l2_load")
    announce(node, "write_aio")
    with pytest.raises(OSError):
        write(node)


def test_a_breakpoint_suspends_one_request_until_it_is_resumed():
    node, said = node_with("")
    node.break_at("l2_load", "A")
    done = []
    for number in range(2):
        node.scheduler.start(node.event("l2_load"), then=lambda result, error, number=number: done.append(number))
    assert (done, node.suspended) == ([1], ["A"])
    node.resume("A")
    node.scheduler.poll()
    assert done == [1, 0]
    assert said == ["blkdebug: Suspended request 'A'", "blkdebug: Resuming request 'A'"]


def test_nothing_to_break_or_resume_is_enoent():
    node, _ = node_with("")
    for call in (lambda: node.break_at("foo", "A"), lambda: node.resume("A"), lambda: node.remove_break("A")):
        with pytest.raises(FileNotFoundError):
            call()


@pytest.mark.parametrize(
    "text",
    [
        "bad",
        '[foo]\nx = "1"',
        "[inject-error]\nevent = write_aio",
        '[inject-error]\nevent = "foo"',
        '[inject-error]\nerrno = "x"',
        '[inject-error]\nsector = "x"',
        '[inject-error]\nfoo = "1"',
        '[inject-error]\niotype = "foo"',
        '[set-state]\nnew_state = "2"',
        '[set-state]\nevent = "l2_load"\nnew_state = "999"',
    ],
)
def test_a_wrong_rule_is_refused(text):
    with pytest.raises(UsageError):
        node_with(text)
