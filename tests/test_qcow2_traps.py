"""Where other implementations of the format went wrong: each trap with an image that qemu-img made."""

import os
import struct
from pathlib import Path

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block import OpenPolicy, open_disk
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.check import check
from e2kdisk.qcow2.create import create
from tests import oracles
from tests.qcow2_model import LabFile, open_image

pytestmark = pytest.mark.needs("qemu-utils")

MIB = 1 << 20


def read(path: Path, offset: int = 0, length: int | None = None) -> bytes:
    with open_disk(path, format="qcow2", read_only=True) as disk:
        return disk.pread(offset, disk.size - offset if length is None else length)


def base_of(tmp_path: Path, size: int = MIB, name: str = "base.raw") -> Path:
    path = tmp_path / name
    path.write_bytes(bytes(range(1, 251)) * (size // 250) + b"\x77" * (size % 250))
    return path


def poke(path: Path, *changes: tuple[int, bytes]) -> None:
    with open(path, "r+b") as file:
        for offset, data in changes:
            file.seek(offset)
            file.write(data)


def extensions(path: Path) -> list[tuple[int, bytes]]:
    """The header extensions of an image file."""
    head = path.read_bytes()[:65536]
    version = struct.unpack_from(">I", head, 4)[0]
    place = 72 if version == 2 else struct.unpack_from(">I", head, 100)[0]
    found = []
    while True:
        kind, length = struct.unpack_from(">II", head, place)
        if kind == 0:
            return found
        found.append((kind, head[place + 8 : place + 8 + length]))
        place += 8 + (length + 7 & ~7)


def add_extensions(path: Path, *items: tuple[int, bytes]) -> None:
    """Put extensions behind those that an image has; it has no backing file."""
    head = bytearray(path.read_bytes()[:65536])
    assert head[8:16] == bytes(8)
    place = struct.unpack_from(">I", head, 100)[0]
    while struct.unpack_from(">I", head, place)[0]:
        place += 8 + (struct.unpack_from(">I", head, place + 4)[0] + 7 & ~7)
    for kind, data in items:
        packed = struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
        head[place : place + len(packed)] = packed
        place += len(packed)
    head[place : place + 8] = bytes(8)
    poke(path, (0, bytes(head[: place + 8])))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("backing_format", ["raw", "qcow2"])
def test_an_overlay_finds_its_backing_file_and_its_format(version: int, backing_format: str, tmp_path: Path) -> None:
    raw = base_of(tmp_path)
    base = tmp_path / f"base.{backing_format}"
    if backing_format == "qcow2":
        oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, base)
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, backing=base.name, backing_format=backing_format, version=version)
    assert read(path) == raw.read_bytes()


def test_a_header_of_104_bytes_has_its_extensions_right_behind(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, backing=base.name, backing_format="raw")
    head = path.read_bytes()[:65536]
    assert struct.unpack_from(">I", head, 100)[0] == 112
    name_at, name_length = struct.unpack_from(">QI", head, 8)
    shorter = head[:100] + struct.pack(">I", 104) + head[112 : name_at + name_length] + bytes(8)
    poke(path, (0, shorter), (8, struct.pack(">Q", name_at - 8)))
    assert oracles.qemu_img("info", path).count("backing file format: raw") == 1
    assert read(path) == base.read_bytes()
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(5, b"hello")
        disk.resize(2 * MIB)
    assert struct.unpack_from(">I", path.read_bytes(), 100)[0] == 104
    oracles.assert_clean(path)
    assert "backing file format: raw" in oracles.qemu_img("info", path)
    assert read(path)[:10] == base.read_bytes()[:5] + b"hello"


def test_the_extension_that_names_the_backing_format_is_the_one_that_qemu_reads(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    path = tmp_path / "ours.qcow2"
    create(path, backing_file=base.name, backing_format="raw")
    assert (0xE2792ACA, b"raw") in extensions(path)
    assert "backing file format: raw" in oracles.qemu_img("info", path)
    oracles.qemu_img("compare", "-f", "qcow2", "-F", "raw", path, base)


@pytest.mark.parametrize("keep", [True, False], ids=["with space kept", "without space"])
def test_a_zero_cluster_hides_the_backing_file(keep: bool, tmp_path: Path) -> None:
    base = base_of(tmp_path)
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, backing=base.name, backing_format="raw", cluster_size=4096)
    before = ("write 64k 64k",) if keep else ()
    oracles.qemu_io(path, *before, "write -z 64k 64k")
    whole = bytearray(base.read_bytes())
    whole[65536:131072] = bytes(65536)
    assert read(path) == whole
    # Part of a zero cluster is written: the rest stays zeros.
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(70000, b"abc")
    whole[70000:70003] = b"abc"
    assert read(path) == whole
    oracles.assert_clean(path)
    raw = tmp_path / "out.raw"
    oracles.qemu_img("convert", "-f", "qcow2", "-O", "raw", path, raw)
    assert raw.read_bytes() == whole


def test_every_compressed_cluster_can_be_read_and_overwritten(tmp_path: Path) -> None:
    raw = tmp_path / "data.raw"
    # Compressible, but differently in each cluster; some clusters do not compress at all.
    data = b"".join(
        os.urandom(4096) if number % 5 == 4 else os.urandom(100 + 7 * number) + bytes([number]) * (3996 - 7 * number)
        for number in range(100)
    )
    raw.write_bytes(data)
    for cluster_size in (512, 4096, 65536):
        path = tmp_path / f"{cluster_size}.qcow2"
        options = ["-o", f"cluster_size={cluster_size}"]
        oracles.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", *options, raw, path)
        assert read(path) == data
        changed = bytearray(data)
        with open_disk(path, format="qcow2") as disk:
            for offset in range(1000, len(data), 9000):
                disk.pwrite(offset, b"X" * 300)
                changed[offset : offset + 300] = b"X" * 300
        assert read(path) == changed
        oracles.assert_clean(path)


@pytest.mark.parametrize("backing_size", [100 * 1024, 100 * 1024 + 512, 3 * MIB, 512])
@pytest.mark.parametrize("backing_format", ["raw", "qcow2"])
def test_backing_files_may_be_shorter_or_longer(backing_size: int, backing_format: str, tmp_path: Path) -> None:
    raw = base_of(tmp_path, backing_size)
    base = tmp_path / f"base.{backing_format}"
    if backing_format == "qcow2":
        oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, base)
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, MIB, backing=base.name, backing_format=backing_format)
    whole = bytearray(raw.read_bytes()[:MIB].ljust(MIB, b"\0"))
    assert read(path) == whole
    assert read(path, 60000, 90000) == whole[60000:150000]
    start = min(backing_size // 2, MIB - 100000) // 512 * 512
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(start, b"!" * 70000)
        # A disk that grows does not show what the backing file has behind the old end.
        disk.resize(2 * MIB)
    whole[start : start + 70000] = b"!" * 70000
    assert read(path) == whole + bytes(MIB)
    oracles.assert_clean(path)
    out = tmp_path / "out.raw"
    oracles.qemu_img("convert", "-f", "qcow2", "-O", "raw", path, out)
    assert out.read_bytes() == read(path)


def test_a_backing_loop_is_found(tmp_path: Path) -> None:
    a, b = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    oracles.create_image(a, MIB)
    oracles.create_image(b, backing=a.name)
    oracles.qemu_img("rebase", "-u", "-b", b.name, "-F", "qcow2", "-f", "qcow2", a)
    with pytest.raises(ImageError, match="loop") as caught:
        open_disk(a, format="qcow2")
    assert "\n" not in str(caught.value)


def test_an_image_that_is_its_own_backing_file_is_found(tmp_path: Path) -> None:
    a = tmp_path / "a.qcow2"
    oracles.create_image(a, MIB)
    oracles.qemu_img("rebase", "-u", "-b", a.name, "-F", "qcow2", "-f", "qcow2", a)
    with pytest.raises(ImageError, match="loop"):
        open_disk(a, format="qcow2", read_only=True)


def test_the_backing_file_is_never_written(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    before = base.read_bytes()
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, backing=base.name, backing_format="raw", cluster_size=512)
    with open_disk(path, format="qcow2") as disk:
        for offset in range(0, MIB, 30000):
            disk.pwrite(offset, b"new" * 1000)
        disk.scheduler.run(disk.discard(0, 300000))
    assert base.read_bytes() == before


def test_a_backing_file_elsewhere_needs_permission(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "disk.qcow2"
    oracles.create_image(path, backing=base, backing_format="raw")
    with pytest.raises(ImageError, match="outside"):
        open_disk(path, format="qcow2")
    with open_disk(path, format="qcow2", policy=OpenPolicy.permissive()) as disk:
        assert disk.pread(0, MIB) == base.read_bytes()


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_preallocated_images_read_as_zeros_and_are_written_in_place(
    mode: str, cluster_size: int, tmp_path: Path
) -> None:
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, MIB, preallocation=mode, cluster_size=cluster_size)
    assert read(path) == bytes(MIB)
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(MIB - 700, b"x" * 700)
        disk.pwrite(0, b"y" * 700)
    assert read(path) == b"y" * 700 + bytes(MIB - 1400) + b"x" * 700
    oracles.assert_clean(path)


UNKNOWN = [(0x11223344, b"first"), (0x55667788, b""), (0x00ABCDEF, bytes(range(100))), (0x11223344, b"a second one")]


def test_unknown_extensions_survive_every_rewrite_of_the_header_in_order(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, MIB, cluster_size=4096)
    add_extensions(path, *UNKNOWN)
    poke(path, (88, struct.pack(">Q", 1 << 40)))  # an unknown autoclear bit
    before = extensions(path)
    assert before[-4:] == UNKNOWN
    with open_disk(path, format="qcow2") as disk:
        assert extensions(path) == before
        disk.resize(64 * MIB)
        disk.pwrite(63 * MIB, b"far")
    assert extensions(path) == before
    assert path.read_bytes()[88:96] == bytes(8)
    oracles.assert_clean(path)


def test_the_header_keeps_its_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, MIB)
    head = path.read_bytes()[:65536]
    longer = head[:100] + struct.pack(">I", 136) + head[104:112] + b"unknown fields...24bytes" + head[112:60000]
    poke(path, (0, longer))
    with open_disk(path, format="qcow2") as disk:
        disk.resize(3 * MIB)
    assert path.read_bytes()[100:136] == longer[100:136]
    assert extensions(path) == [item for item in extensions(path) if item[0] == 0x6803F857]
    oracles.assert_clean(path)


def test_bitmaps_that_somebody_did_not_keep_up_are_dropped_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, MIB)
    oracles.qemu_img("bitmap", "--add", path, "dirty")
    assert path.read_bytes()[95] == 1
    poke(path, (95, b"\0"))
    with open_disk(path, format="qcow2", read_only=True):
        pass
    assert [item for item in extensions(path) if item[0] == 0x23852875]
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, b"in no bitmap")
    assert path.read_bytes()[95] == 0
    assert not [item for item in extensions(path) if item[0] == 0x23852875]
    assert oracles.check_image(path)["leaks"] == 2  # the directory and a table
    assert check(path, fix="leaks").clean
    oracles.assert_clean(path)


def test_the_feature_names_go_when_the_header_would_not_fit_with_them_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, MIB, cluster_size=1024)
    add_extensions(path, *UNKNOWN)
    file = LabFile(Scheduler(), path.read_bytes())
    image = open_image(file)
    file.scheduler.run(image.writer.switch(backing_file="n" * 400))
    path.write_bytes(file.data)
    assert extensions(path) == UNKNOWN
    assert "n" * 400 in oracles.qemu_img("info", path)
    before = bytes(file.data)
    with pytest.raises(ImageError, match=r"header: .*do not fit"):
        file.scheduler.run(image.writer.switch(backing_file="n" * 1000))
    assert bytes(file.data) == before


def test_an_empty_disk_can_grow(tmp_path: Path) -> None:
    for number, make in enumerate((create, oracles.create_image)):
        path = tmp_path / f"{number}.qcow2"
        make(path, 0)
        with open_disk(path, format="qcow2") as disk:
            disk.resize(5 * MIB)
            disk.pwrite(4 * MIB, b"here")
        assert read(path, 4 * MIB, 4) == b"here"
        oracles.assert_clean(path)
