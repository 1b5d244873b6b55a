"""Trees of options: every way to write one means the same, what is wrong in it is named."""

import json

import pytest

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.blkdebug import BlkdebugNode
from e2kdisk.block.node import Node
from e2kdisk.block.null import NullNode
from e2kdisk.block.open import Opener
from e2kdisk.block.open_tree import TreeOpener
from e2kdisk.block.tree import as_size, nested, parse_name, parse_pairs
from e2kdisk.errors import MismatchError, UsageError
from e2kdisk.qcow2.create import create


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Call `opened(name, **options) -> node`, read-only unless told; closed at the end."""
    monkeypatch.chdir(tmp_path)
    engine = AutoEngine(Scheduler())
    nodes: list[Node] = []

    def open(name, options=None, read_only=True):
        opener = TreeOpener(Opener(engine), read_only=read_only)
        nodes.append(engine.scheduler.run(opener.open(name, options or {})))
        return nodes[-1]

    yield open
    for node in nodes:
        engine.scheduler.run(node.close())
    engine.close()


def read(node, offset, length):
    data = bytearray(length)
    node.scheduler.run(node.read(offset, [memoryview(data)]))
    return bytes(data)


def test_keys_with_dots_and_lists_become_trees():
    assert nested({"a.b": 1, "a.c.d": 2, "e": [{"f": 3}]}) == {"a": {"b": 1, "c": {"d": 2}}, "e": {"0": {"f": 3}}}


def test_a_key_that_is_a_value_and_a_tree_is_refused():
    with pytest.raises(UsageError, match="Cannot mix scalar and non-scalar keys"):
        nested({"a": 1, "a.b": 2})


def test_pairs_have_commas_twice_and_names_without_a_value():
    assert parse_pairs("driver=qcow2,file.filename=a,,b,lazy") == (
        {"driver": "qcow2", "file": {"filename": "a,b"}, "lazy": "on"},
        ["lazy"],
    )


@pytest.mark.parametrize(
    ("name", "tree"),
    [
        ("disk.qcow2", {"filename": "disk.qcow2"}),
        ("./a:b", {"filename": "./a:b"}),
        ("file:a:b", {"driver": "file", "filename": "a:b"}),
        ("null-co://", {"driver": "null-co"}),
        ("blkdebug::a", {"driver": "blkdebug", "image": {"filename": "a"}}),
        ("blkdebug:c:file:a", {"driver": "blkdebug", "image": {"driver": "file", "filename": "a"}, "config": "c"}),
        ("blkverify:r:i", {"driver": "blkverify", "raw": {"filename": "r"}, "test": {"filename": "i"}}),
    ],
)
def test_a_protocol_name_is_a_tree(name, tree):
    assert parse_name(name) == tree


@pytest.mark.parametrize("name", ["nosuch:x", "blkdebug:x", "blkverify:x", "null-co:", "json:{", "json:[]"])
def test_a_wrong_name_is_refused(name):
    with pytest.raises(UsageError):
        parse_name(name)


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("64k", 65536), ("1M", 1 << 20), ("0x10", 16), (7, 7)])
def test_a_size_has_units(text, size):
    assert as_size("size", text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", -1, True, "1kk", None])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="expects a non-negative number"):
        as_size("size", text)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("disk.qcow2", {}),
        ("disk.qcow2", {"driver": "qcow2"}),
        ("file:disk.qcow2", {"driver": "qcow2"}),
        ("blkdebug::disk.qcow2", {}),
        (None, {"driver": "qcow2", "file": {"filename": "disk.qcow2"}}),
        (None, {"file": {"driver": "blkdebug", "image": {"filename": "disk.qcow2"}}}),
        ("disk.qcow2", {"file": {"locking": "off"}}),
        ("json:" + json.dumps({"file": {"driver": "file", "filename": "disk.qcow2"}}), {}),
        ("json:" + json.dumps({"driver": "qcow2", "file.filename": "disk.qcow2"}), {}),
    ],
)
def test_every_way_to_say_it_opens_the_same_image(opened, tmp_path, name, options):
    create(tmp_path / "disk.qcow2", 3 << 20)
    assert opened(name, options).size == 3 << 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Must specify either driver or file"),
        ({"driver": "foo"}, "Unknown driver 'foo'"),
        ({"driver": "qcow2"}, 'A block device must be specified for "file"'),
        ({"driver": "null-co", "foo": "1"}, "doesn't support the option 'foo'"),
        ({"driver": "raw", "file": {"driver": "null-co"}, "foo": {"bar": 1}}, "does not support the option 'foo.bar'"),
        ({"file": "name"}, "Cannot find device='name'"),
        ({"driver": "blkdebug"}, 'must be specified for "image"'),
    ],
)
def test_what_is_wrong_in_a_tree_is_named(opened, options, message):
    with pytest.raises(UsageError, match=message):
        opened(None, options)


def test_a_null_node_leaves_buffers_alone_unless_it_shall_read_zeros(opened):
    data = bytearray(b"abcd")
    node = opened("null-co://", {"driver": "raw"})
    node.scheduler.run(node.read(0, [memoryview(data)]))
    assert data == b"abcd"
    zeros = NullNode(node.scheduler, 4)
    node.scheduler.run(zeros.read(0, [memoryview(data)]))
    assert data == bytes(4)


def test_blkverify_finds_the_first_byte_that_differs(opened, tmp_path):
    (tmp_path / "image").write_bytes(bytes(2000) + b"x" + bytes(2095))
    (tmp_path / "copy").write_bytes(bytes(4096))
    node = opened("blkverify:copy:image", {"driver": "raw"})
    assert read(node, 0, 2000) == bytes(2000)
    with pytest.raises(MismatchError, match="read offset=1024 bytes=1024 contents mismatch at offset 2000"):
        read(node, 1024, 1024)


def test_blkverify_writes_both(opened, tmp_path):
    for name in ("image", "copy"):
        (tmp_path / name).write_bytes(bytes(4096))
    node = opened("blkverify:copy:image", {"driver": "raw"}, read_only=False)
    node.scheduler.run(node.write(100, [memoryview(b"both")]))
    assert (tmp_path / "image").read_bytes() == (tmp_path / "copy").read_bytes() == bytes(100) + b"both" + bytes(3992)


def test_an_error_leaves_nothing_open(opened, tmp_path):
    create(tmp_path / "disk.qcow2", 1 << 20)
    with pytest.raises(UsageError, match="does not support the option 'foo'"):
        opened("disk.qcow2", {"driver": "raw", "foo": "1"}, read_only=False)
    assert isinstance(opened("blkdebug::disk.qcow2", {"driver": "raw"}, read_only=False).file, BlkdebugNode)
