"""--drive: what is written as for qemu is understood, what is wrong is said in one line."""

import pytest

from e2kdisk.block import DriveOptions, parse_drive
from e2kdisk.errors import UsageError


def test_every_key_has_its_place():
    text = "file=disk.qcow2,format=qcow2,readonly=on,cache=none,if=virtio,serial=abc,id=d0,index=2,force-share=on"
    assert parse_drive(text) == DriveOptions(
        "disk.qcow2", "qcow2", "virtio", 2, "abc", "d0", True, "none", True, None, False, {}
    )
    assert parse_drive("file=d,l2-cache-size=4M").extras == {"l2_cache_size": 4 << 20}
    assert parse_drive("file=d,no-backing=on").no_backing
    assert parse_drive("file=d,backing=b").backing == "b"
    assert parse_drive("file=d") == DriveOptions("d")


def test_a_comma_in_a_name_is_written_twice():
    assert parse_drive("file=a,,b,,,,c,serial=x,,").file == "a,b,,c"
    assert parse_drive("file=a,serial=x,,y").serial == "x,y"


def test_the_first_part_may_be_just_the_file():
    assert parse_drive("disk.qcow2,if=ide") == DriveOptions("disk.qcow2", interface="ide")


def test_an_equals_sign_in_a_value_stays():
    assert parse_drive("file=a=b").file == "a=b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file=d,colour=red", "unknown drive option 'colour'; known are file, format, if, index, serial"),
        ("file=d,readonly", "drive option 'readonly' has no value; it is written readonly=VALUE"),
        ("file=d,readonly=maybe", "readonly=maybe: must be on or off"),
        ("file=d,cache=fast", "unknown cache mode 'fast'; known are"),
        ("file=d,if=scsi", "if=scsi: unknown interface; known are virtio, virtio-pci, ide, ahci, none"),
        ("file=d,index=x", "index=x: must be a number"),
        ("file=d,size=1X", "size=1X: not a size"),
        ("format=raw", "names no file; it needs file=PATH"),
        ("", "names no file"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(text, message):
    with pytest.raises(UsageError) as caught:
        parse_drive(text)
    assert message in str(caught.value)


def test_a_drive_opens_as_a_disk(tmp_path):
    (tmp_path / "a,b").write_bytes(b"hello" + bytes(507))
    drive = parse_drive(f"file={tmp_path}/a,,b,format=raw,readonly=on,serial=S1")
    with drive.open(engine="threads") as disk:
        assert (disk.read_only, disk.serial, disk.pread(0, 5)) == (True, "S1", b"hello")
