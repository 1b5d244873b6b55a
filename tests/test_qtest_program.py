"""Our qemu-system-ARCH as programs start it: command lines, QMP, sockets, and how it ends."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from e2kdisk.tools.main import main
from tests import qtest_driver
from tests.ata_driver import BUFFER, DRDY, DRQ, DSC, INTERRUPT, Ide, prds
from tests.oracles import assert_clean, qemu_img
from tests.qtest_client import LibQtest, Qtest
from tests.qtest_driver import QtestDriver, elbrus_outl
from tests.qtest_lab import Inside, our_program
from tests.virtio_driver import DISCARD, GET_ID, IN, OK, OUT, RAM_BASE, WRITE_ZEROES, ranges
from tests.virtio_links import MsixLink

SLOT = qtest_driver.ARM
ARM, RISCV, E2K = (f"qemu-system-{name}" for name in ("aarch64", "riscv64", "e2k"))


class ElbrusAsPc(LibQtest):
    """Our Elbrus board, whose IDE function the driver looks for at its place on a PC."""

    outl = elbrus_outl


def refused(capsys, *arguments):
    """What a command line that is refused says: one line."""
    assert main(["qtest", *map(str, arguments)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("e2kdisk: ") and said.err.count("\n") == 1
    return said.err.removeprefix("e2kdisk: ").strip()


# -- as libqtest starts it ------------------------------------------------------------------------------


def test_a_whole_session_as_test_programs_of_qemu_make_it(tmp_path, make_image, qemu_io):
    image = make_image("8M")
    options = ["-M", "virt", "-device", "virtio-blk-device,drive=drive0,serial=S1"]
    options += ["-drive", f"if=none,id=drive0,file={image},format=qcow2,auto-read-only=off"]
    options += ["-drive", "if=none,id=drive1,file=null-co://,file.read-zeroes=on,format=raw"]
    with LibQtest(tmp_path, our_program(), *options) as qemu:
        assert qemu.greeting["QMP"]["version"]["qemu"]["major"] == 7
        assert qemu.qmp("qmp_capabilities") == {}
        assert qemu.command("endianness") == "little"
        driver = QtestDriver(qemu, legacy=True, page_size=512)
        driver.init()
        driver.write(100, b"written by a test" + bytes(512 - 17))
        driver.flush()
        assert driver.read(100, 1)[:17] == b"written by a test"
        assert driver.call(GET_ID, length=20).data == b"S1".ljust(20, b"\0")
        assert driver.call(WRITE_ZEROES, data=ranges((200, 8, 0))).status == OK
        assert driver.call(DISCARD, data=ranges((0, 8, 0))).status == OK
        # The wire rises with each completion and falls when the driver acknowledges it.
        assert qemu.raised == [SLOT.wire] * 6
        pending = driver.start(IN, 100, b"", 512)
        driver.kick()
        assert (driver.line(), driver.link.take_reasons(), driver.line()) == (True, 1, False)
        assert qemu.command("clock_step") == "0"
        assert qemu.command("clock_step", "100") == "100"
        driver.collect()
        assert driver.result(pending).data[:17] == b"written by a test"
        assert qemu.qmp("block_resize", device="drive0", size=4 << 20) == {}
        assert (driver.line(), driver.link.take_reasons(), driver.config(0, 8)) == (True, 3, (4 << 20) // 512)
        assert qemu.qmp("system_reset") == {}
        assert qemu.events[-1]["event"] == "RESET"
        assert (driver.status, driver.line()) == (0, False)
        driver.init()
        assert driver.read(100, 1)[:17] == b"written by a test"
    assert qemu.process.returncode == 0
    qemu_io(image, "read -P 0 51217 495", "read -P 0 100k 4k")
    assert '"virtual-size": 4194304' in qemu_img("info", "--output=json", image)
    assert_clean(image)


def test_a_whole_session_with_ide_through_ports(tmp_path, make_image, qemu_io):
    image = make_image("8M")
    options = [
        "-machine",
        "elbrus",
        "-m",
        "64",
        "-device",
        "ide-hd,drive=d,bus=ide.0",
        "-drive",
        f"id=d,if=none,file={image}",
    ]
    with ElbrusAsPc(tmp_path, our_program(E2K), *options) as qemu:
        qemu.intercept("ioapic")
        ide = Ide(qemu)
        ide.command(0xEC)  # IDENTIFY DEVICE
        assert (qemu.raised, qemu.irq) == ([14], {14: True})
        assert ide.status & DRQ and qemu.irq == {14: False}
        words = ide.read_block()
        assert int.from_bytes(words[120:124], "little") == (8 << 20) // 512
        assert ide.pio_out(0x30, b"by ports".ljust(1024, b"."), 10) == DRDY | DSC
        qemu.write(BUFFER, b"by bus master".ljust(4096, b"-"))
        assert ide.dma(0xCA, 64, 8, prds((BUFFER, 4096)), to_memory=False) == (INTERRUPT, DRDY | DSC)
        assert ide.call(0xE7) == DRDY | DSC  # FLUSH CACHE
        assert qemu.raised == [14] * 5 and qemu.irq == {14: False}
        assert ide.read_dma(10, 2)[:8] == b"by ports"
        assert ide.pio_in(0x20, 64, 2).startswith(b"by bus master---")
    assert qemu.process.returncode == 0
    qemu_io(image, f"read -P {ord('.')} 5128 1016", f"read -P {ord('-')} 32781 4083", "read -P 0 36k 100k")
    assert_clean(image)


def test_messages_reach_memory_of_a_function_at_its_address(tmp_path, make_image):
    options = ["-M", "virt", "-device", "virtio-blk-pci,id=drv0,drive=drive0,addr=04.0"]
    options += ["-drive", f"if=none,id=drive0,file={make_image('1M')},format=qcow2"]
    with LibQtest(tmp_path, our_program(), *options) as qemu:
        driver = QtestDriver(qemu, legacy=False, transport="pci")
        driver.init()
        driver.write(0, b"x" * 512)
        assert driver.read(0, 1) == b"x" * 512
        assert qemu.raised == [3, 3]
        # A machine contains slots for virtio-mmio without a device, in which such programs look first.
        assert [qemu.load(SLOT.base + offset, 4) for offset in (0, 4, 8)] == [0x7472_6976, 1, 0]


def test_changes_of_size_and_suppressed_interrupts_come_as_messages(tmp_path, make_image):
    """The course of QEMU's own tests of virtio-blk over PCI: msix, idx, nxvirtq."""
    options = ["-M", "virt", "-device", "virtio-blk-pci,id=drv0,drive=drive0,addr=04.0"]
    options += ["-drive", f"if=none,id=drive0,file={make_image('1M', format='raw')},format=raw,auto-read-only=off"]
    with LibQtest(tmp_path, our_program(), *options) as qemu:
        qemu.qmp("qmp_capabilities")
        driver = QtestDriver(qemu, legacy=True, transport="pci")
        link, places = driver.link, (RAM_BASE + 0xC0000, RAM_BASE + 0xC0004)

        def messages():
            found = [qemu.load(place, 4) for place in places]
            for place in places:
                qemu.store(place, 4, 0)
            return found

        msix = MsixLink(link.function)
        for vector, place in enumerate(places):
            msix.set_vector(vector, place, 0x1234_5678 + vector)
        msix.control(enable=True)
        link.vectors = (0, 1)
        driver.init()
        assert messages() == [0, 0]
        assert qemu.qmp("block_resize", device="drive0", size=512 << 10) == {}
        assert (messages(), driver.config(0, 8)) == ([0x1234_5678, 0], 1024)
        # The second of three requests interrupts nobody: the driver asks to be told of the third (VIRTIO 1.2 2.7.7).
        driver.write(0, b"a" * 512)
        assert messages() == [0, 0x1234_5679]
        driver.start(OUT, 1, b"TEST" * 128)
        driver.poke16(driver.avail + 4 + 2 * driver.size, 2)
        driver.kick()
        assert messages() == [0, 0]
        pending = driver.start(IN, 1, b"", 512)
        driver.kick()
        assert messages() == [0, 0x1234_5679]
        driver.collect()
        assert driver.result(pending).data == b"TEST" * 128
        # A queue that is not there.
        link.set(0x0E, 2, 2)
        link.set(0x08, 4, 1)
        assert link.get(0x08, 4) == 0
        assert qemu.ask("endianness") == "OK little"


def test_a_program_first_asks_what_there_is(tmp_path):
    with LibQtest(tmp_path, our_program(), "-machine", "none") as qemu:
        qemu.qmp("qmp_capabilities")
        assert {machine["name"] for machine in qemu.qmp("query-machines")} == {"virt", "none"}
        types = qemu.qmp("qom-list-types", implements="device", abstract=True)
        assert {"abstract": True, "name": "virtio-device", "parent": "device"} in types
        names = {kind["name"] for kind in types}
        assert {"virtio-blk-device", "virtio-blk-pci", "virtio-mmio"} <= names and "ide-hd" not in names
        assert qemu.qmp("qom-list-types", implements="virtio-device")[0]["name"] == "virtio-blk-device"
        assert qemu.qmp("qom-list-types", implements="e1000") == []


def test_types_are_told_only_where_a_machine_has_them():
    found = {}
    for name in (ARM, RISCV, E2K):
        with Inside("-machine", "none", name=name) as inside:
            inside.qmp.opened()
            inside.say(b'{"execute": "qmp_capabilities"}', inside.qmp)
            answer = json.loads(inside.say(b'{"execute": "qom-list-types"}', inside.qmp))
            found[name] = {kind["name"] for kind in answer["return"]} & {
                "virtio-blk-device",
                "virtio-blk-pci",
                "ide-hd",
            }
    assert found[ARM] == {"virtio-blk-device", "virtio-blk-pci"}
    assert found[RISCV] == {"virtio-blk-device"}
    assert found[E2K] == {"virtio-blk-pci", "ide-hd"}


@pytest.mark.parametrize("name", [RISCV, E2K])
def test_other_machines_answer_under_their_names(tmp_path, make_image, name):
    image = make_image("1M", format="raw")
    model, kind = {RISCV: ("virt", "virtio-blk-device"), E2K: ("elbrus", "ide-hd")}[name]
    drive = ["-drive", f"id=d,if=none,format=raw,file={image}", "-device", f"{kind},drive=d,id=disk"]
    with LibQtest(tmp_path, our_program(name), "-machine", model, *drive) as qemu:
        if name == RISCV:
            assert [qemu.load(0x1000_8000 + offset, 4) for offset in (0, 8)] == [0x7472_6976, 2]
            qemu.intercept("plic")
        else:
            assert qemu.inb(0x1F7) == 0x50
            qemu.intercept("ioapic")
            qemu.outb(0x1F7, 0xEC)  # IDENTIFY DEVICE
            assert qemu.raised == [14]
            assert qemu.inb(0x1F7) == 0x58
            assert qemu.irq[14] is False
            assert b"".join(qemu.inw(0x1F0).to_bytes(2, "big") for _ in range(256))[54:70] == b"E2KDISK HARDDISK"


@pytest.mark.parametrize(
    ("name", "paths"),
    [(",id=drv0", ["/machine/peripheral/drv0", "drv0"]), ("", ["/machine/peripheral-anon/device[0]"])],
    ids=["named", "anonymous"],
)
def test_wires_out_of_a_device_are_heard_by_its_path(make_image, name, paths):
    drive = ["-drive", f"id=d,if=none,file={make_image('1M')}"]
    with Qtest("virt", *drive, "-device", f"virtio-blk-device,drive=d{name}", program=our_program()) as qemu:
        for path in paths:
            qemu.intercept(path, outputs=True)
        assert qemu.ask(f"irq_intercept_in {SLOT.chip}") == "FAIL IRQ intercept already enabled"
        qemu.intercept = lambda path: None
        driver = QtestDriver(qemu, legacy=True)
        driver.init()
        driver.read(0, 1)
        assert (qemu.raised, qemu.irq) == ([0], {0: False})


# -- QMP ------------------------------------------------------------------------------------------------

MESSAGES = [
    '{"execute": "query-status"}',
    '{"execute": "qmp_capabilities", "arguments": {"x": 1}}',
    '{"execute": "qmp_capabilities"}',
    '{"execute": "qmp_capabilities"}',
    '{"execute": "query-status", "id": 7}',
    '{"execute": "cont"}',
    '{"execute": "query-status"}',
    '{"execute": "cont"}',
    '{"execute": "stop", "id": {"a": [1]}}',
    '{"execute": "stop"}',
    "{'execute': 'query-status', 'id': 'it\\'s \"x\"'}",
    '{"execute": "nope"}',
    '{"exec": 1}',
    "{}",
    '{"execute": "query-status", "arguments": {"x": 1}}',
    '{"execute": "query-status", "more": 1}',
    '{"execute": 5}',
    '{"execute": "query-status", "arguments": 5}',
    "[1]",
    "5",
    "null",
    '{"execute": "block_resize", "arguments": {"device": "d0", "size": 2097152}}',
    '{"execute": "block_resize", "arguments": {"device": "zz", "size": 2097152}}',
    '{"execute": "block_resize", "arguments": {"node-name": "nn", "size": 1048577}}',
    '{"execute": "block_resize", "arguments": {"node-name": "nn", "size": 3145728}}',
    '{"execute": "block_resize", "arguments": {"size": 1048576}}',
    '{"execute": "block_resize", "arguments": {"device": "d0"}}',
    '{"execute": "block_resize", "arguments": {"device": "d0", "size": -1}}',
    '{"execute": "block_resize", "arguments": {"device": "d0", "size": "x"}}',
    '{"execute": "block_resize", "arguments": {"device": 5, "size": 512}}',
    '{"execute": "qom-list-types", "arguments": {"implements": "virtio-blk-device"}}',
    '{"execute": "qom-list-types", "arguments": {"implements": "virtio-blk-pci-base", "abstract": true}}',
    '{"execute": "system_reset"}',
    '{"execute": "quit"}',
]


@pytest.mark.needs("qemu-system-arm")
def test_qmp_answers_as_qemu_does(tmp_path, make_image):
    answers, events = [], []
    for number, program in enumerate((ARM, our_program())):
        place = tmp_path / str(number)
        place.mkdir()
        image = make_image("1M")
        drive = ["-drive", f"id=d0,if=none,file={image},node-name=nn", "-device", "virtio-blk-device,drive=d0,id=drv"]
        with LibQtest(place, program, "-M", "virt", "-cpu", "cortex-a53", "-S", *drive) as qemu:
            found = []
            for text in MESSAGES:
                answer = qemu.say(text)
                if "qom-list-types" in text:
                    answer["return"].sort(key=lambda kind: kind["name"])
                found.append((text, answer))
            answers.append(found)
            assert qemu.process.wait(10) == 0
        events.append([{key: value for key, value in event.items() if key != "timestamp"} for event in qemu.events])
        assert json.loads(qemu_img("info", "--output=json", image))["virtual-size"] == 3 << 20
    for qemus, ours in zip(*answers, strict=True):
        assert ours == qemus
    assert events[1] == events[0]
    assert [event["event"] for event in events[1]] == ["RESUME", "STOP", "RESET", "SHUTDOWN"]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (b'{"execute" "x"}', 1),
        (b"}", 1),
        (b'{"execute": "stop"', 0),
        (b'{"execute": "st\xff{"execute": "query-version"}', 1),
        (b"\xff" * 5000, 0),
        (b" \r\n\t" * 5000, 0),
        (b"[" * 2000, 2),
        (b"[" * 1024 + b"]" * 1024, 1),
        (b'{"a": "\\ud800"}', 1),
        (b'{"a": "\xc3("}', 1),
        (b"nonsense more ", 2),
        (b'{"execute":"query-version"}{"execute":"query-commands"}', 2),
        (b'{"execute":"query-version","arguments":{},"id":1e400}', 1),
        (b"9" * 5000 + b" ", 1),
    ],
)
def test_what_is_no_message_is_answered_and_the_next_one_heard(text, answers):
    with Inside("-machine", "none") as inside:
        inside.qmp.opened()
        inside.say(b'{"execute": "qmp_capabilities"}', inside.qmp)
        said = inside.say(text, inside.qmp).splitlines()
        assert len(said) >= min(answers, 1) and (answers or not said)
        assert all(json.loads(line) for line in said)
        # A byte that no text holds makes it start anew.
        assert json.loads(inside.say(b'\xff{"execute":"stop","id":5}', inside.qmp).splitlines()[-1])["id"] == 5


def test_a_message_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr("e2kdisk.exports.qtest.qmp_json.MESSAGE_MAX", 1000)
    with Inside("-machine", "none") as inside:
        inside.qmp.opened()
        assert b"size limit" in inside.say(b'{"a": "' + b"x" * 1000, inside.qmp)


# -- command lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-zzz"], "-zzz: invalid option"),
        (["-m"], "-m: requires an argument"),
        (["disk.img"], "disk.img"),
        ([], "No machine specified"),
        (["-M", "pc"], "unsupported machine type 'pc'"),
        (["-M", "virt-arm64,zz=1"], "Property 'machine.zz' not found"),
        (["-M", "virt-arm64,gic-version=3"], "gic-version=3 is not modelled"),
        (["-accel", "xen"], "invalid accelerator xen"),
        (["-cpu", "pentium", "-M", "virt-arm64"], "unable to find CPU model 'pentium'"),
        (["-smp", "2"], "one CPU"),
        (["-m", "zz"], "'zz' is not a size"),
        (["-m", "1", "-M", "virt-arm64"], "needs a multiple"),
        (["-bios", "/no/such/file", "-M", "virt-arm64"], "-bios /no/such/file: No such file or directory"),
        (["-device", "nope"], "'nope' is not a valid device model name"),
        (["-device", "virtio-blk-device"], "drive property not set"),
        (["-device", "virtio-blk-device,drive=x"], "can't find value 'x'"),
        (["-device", "virtio-blk-device,drive=d,zz=1"], "Property 'virtio-blk-device.zz' not found"),
        (["-device", "virtio-blk-device,drive=d,num-queues=2"], "num-queues=2 is not modelled"),
        (["-device", "virtio-blk-device,drive=d,queue-size=3"], "queue size 3"),
        (["-device", "virtio-blk-device,drive=d,bus=virtio-mmio-bus.32"], "Bus 'virtio-mmio-bus.32' not found"),
        (["-device", "virtio-blk-device,drive=d,logical_block_size=x"], "expects a number"),
        (["-device", "virtio-blk-pci,drive=d,addr=99"], "addr' doesn't take value '99'"),
        (["-device", "virtio-blk-pci,drive=d,addr=4.1"], "addr' doesn't take value '4.1'"),
        (["-device", "virtio-blk-pci,drive=d,addr=0"], "slot 0 of the PCI bus is not free"),
        (["-device", "virtio-blk-pci,drive=d,disable-modern=on"], "disable-modern=on is not modelled"),
        (["-device", "virtio-blk-pci,drive=d,vectors=4096"], "2048 at most"),
        (["-device", "ide-hd,drive=d"], "No 'IDE' bus"),
        (["-device", '{"driver": "virtio-blk-device", "drive": ["d"]}'], "expects a text"),
        (["-device", '{"driver": '], "JSON"),
        (["-drive", "if=scsi,file=x"], "unsupported bus type 'scsi'"),
        (["-drive", "if=none,file=/no/such/file"], "No such file or directory"),
        (["-drive", "if=none,file=null-co://,format=raw,zz=1"], "does not support the option 'zz'"),
        (["-drive", "if=none,file=null-co://,cache=zz"], "zz"),
        (["-drive", "if=none,id=d,file=null-co://"], "Duplicate ID 'd'"),
        (["-drive", "if=none,file=null-co://,snapshot=on"], "snapshot=on is not modelled"),
        (["-drive", "id=x"], "file=PATH"),
        (["-drive", "file=null-co://,if=none,index=0"], "drive with index=0 exists"),
        (["-drive", "file=null-co://,index=1,bus=0"], "index cannot be used with bus and unit"),
        (["-drive", "file=null-co://,if=none,id=1x"], "Parameter 'id' expects a letter"),
        (["-device", "virtio-blk-device,drive=d,id=a/b"], "Parameter 'id' expects a letter"),
        (["-device", "virtio-blk-device,drive=d,id=ide0"], "Duplicate ID 'ide0'"),
        (["-M", "elbrus", "-drive", "file=null-co://,if=ide,index=4"], "Bus 'ide.2' not found"),
        (["-blockdev", "zz"], "'node-name' must be specified"),
        (["-blockdev", "zz,node-name=n"], "Unknown driver 'zz'"),
        (["-blockdev", "qcow2,node-name=n,file=gone"], "node-name='gone'"),
        (["-chardev", "zz,id=a"], "'zz' is not a valid char driver name"),
        (["-chardev", "null"], "Parameter 'id' is missing"),
        (["-chardev", "socket,id=a"], "path="),
        (["-chardev", "socket,id=a,host=localhost,port=5"], "path="),
        (["-chardev", "null,id=a,zz=1"], "Invalid parameter 'zz'"),
        (["-chardev", "null,id=a", "-chardev", "null,id=a"], "Duplicate ID 'a'"),
        (["-mon", "chardev=zz,mode=control"], 'chardev "zz" not found'),
        (["-mon", "chardev=zz"], "mode=control"),
        (["-qtest", "unix:/no/such/socket"], "Failed to connect to '/no/such/socket'"),
        (["-qtest", "unix:" + "x" * 200], "Failed to connect"),
        (["-qtest", "zz"], "'zz' is not a valid char driver"),
        (["-qtest", "stdio", "-qmp", "stdio"], "cannot use stdio by multiple character devices"),
        (["-qtest-log", "/no/such/log", "-qtest", "null"], "/no/such/log"),
        (["-display", "gtk"], "not modelled"),
        (["-global", "e1000.x=1"], "only virtio-mmio.force-legacy"),
    ],
)
def test_what_is_not_modelled_is_refused_in_one_line(capsys, arguments, why):
    rest = [] if "-M" in arguments or not arguments else ["-M", "virt-arm64"]
    drive = (
        []
        if arguments[:1] == [] or "if=scsi" in str(arguments)
        else ["-drive", "if=none,id=d,file=null-co://,format=raw"]
    )
    if not arguments:
        drive = []
    assert why in refused(capsys, *rest, *drive, *arguments)


def test_a_drive_is_for_one_device(capsys):
    options = [
        "-M",
        "virt-arm64",
        "-drive",
        "if=none,id=d,file=null-co://,format=raw",
        "-device",
        "virtio-blk-device,drive=d",
    ]
    assert "already in use" in refused(capsys, *options, "-device", "virtio-blk-pci,drive=d")
    more = ["-drive", "if=none,id=e,file=null-co://,format=raw", "-device", "virtio-blk-pci,drive=e,id=x"]
    more += ["-drive", "if=none,id=f,file=null-co://,format=raw", "-device", "virtio-blk-pci,drive=f,id=x"]
    assert "Duplicate ID 'x'" in refused(capsys, *options, *more)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-machine", "help"], "virt-arm64"),
        (["-device", "help"], 'name "virtio-blk-device"'),
        (["-accel", "help"], "qtest"),
        (["-version"], "QEMU emulator version 7.2"),
        (["--help"], "usage: e2kdisk qtest"),
    ],
)
def test_questions_are_answered(capsys, arguments, text):
    assert main(["qtest", *arguments]) == 0
    assert text in capsys.readouterr().out


def test_every_way_to_describe_a_disk_opens_it(make_image, tmp_path):
    image, other = make_image("1M", name="a,b.qcow2"), make_image("2M")
    comma = str(image).replace(",", ",,")
    for describe in (
        ["-drive", f"file={comma},id=n,if=none"],
        ["-drive", f"file={comma},format=qcow2,node-name=n,if=none,readonly=on,cache=none,aio=native"],
        ["-blockdev", f"driver=qcow2,node-name=n,file.driver=file,file.filename={comma}"],
        ["-blockdev", f"driver=file,filename={comma},node-name=f", "-blockdev", "qcow2,node-name=n,file=f"],
        [
            "-blockdev",
            json.dumps({"driver": "qcow2", "node-name": "n", "file": {"driver": "file", "filename": str(image)}}),
        ],
    ):
        for device in ("virtio-blk-device,drive=n", '{"driver": "virtio-blk-device", "drive": "n"}'):
            options = ["-M", "virt", *describe, "-device", device, "-drive", f"if=none,file={other}"]
            with Inside(*options) as inside:
                assert inside.ask(f"readq {SLOT.base + 0x100:#x}") == "OK 0x0000000000000800"


def test_devices_fill_slots_as_qemu_fills_them():
    drives = [part for name in "abcd" for part in ("-drive", f"if=none,id={name},file=null-co://,format=raw")]
    devices = [
        "virtio-blk-device,drive=a",
        "virtio-blk-device,drive=b,bus=virtio-mmio-bus.3",
        "virtio-blk-device,drive=c",
    ]
    options = ["-M", "virt", *drives, *(part for device in devices for part in ("-device", device))]
    with Inside(*options, "-drive", "file=null-co://,format=raw") as inside:
        found = [slot for slot in range(32) if inside.ask(f"readl {0x0A00_0008 + 0x200 * slot:#x}")[-1] == "2"]
        assert found == [3, 30, 31]
        assert inside.ask("readl 0x4010008000") == "OK 0x0000000010011af4"  # a drive that asks for no device


@pytest.mark.parametrize(
    ("name", "machine", "ids"),
    [(ARM, "virt", "virtio0 none0 virtio1 virtio2"), (E2K, "elbrus", "ide0-hd0 none0 virtio0 ide0-hd1")],
)
def test_drives_without_a_name_have_those_of_qemu(name, machine, ids):
    null = "file=null-co://,format=raw"
    drives = ["-drive", null, "-drive", f"{null},if=none", "-drive", f"{null},if=virtio", "-drive", null]
    with Inside("-M", machine, *drives, name=name) as inside:
        assert list(inside.emulator.drives.disks) == ids.split()


def test_ide_drives_without_a_device_are_at_their_index():
    null = "file=null-co://,format=raw,if=ide"
    drives = ["-drive", f"{null},index=3", "-drive", null, "-drive", f"{null},bus=1,unit=0"]
    with Inside("-M", "elbrus", *drives, name=E2K) as inside:
        assert list(inside.emulator.drives.disks) == ["ide1-hd1", "ide0-hd0", "ide1-hd0"]
        found = []
        for base, unit in ((0x1F0, 0), (0x1F0, 1), (0x170, 0), (0x170, 1)):
            inside.ask(f"outb {base + 6} {0xA0 | unit << 4}")
            found.append(inside.ask(f"inb {base + 7}") == "OK 0x0050")
        assert found == [True, False, True, True]


def test_ide_drives_are_where_their_options_say():
    drives = [part for name in "abc" for part in ("-drive", f"if=none,id={name},file=null-co://,format=raw")]
    devices = ["ide-hd,drive=a,bus=ide.1,unit=1,serial=ONE", "ide-hd,drive=b", "ide-hd,drive=c,bus=ide.1,model=two"]
    options = ["-M", "elbrus", *drives, *(part for device in devices for part in ("-device", device))]
    with Inside(*options, name=E2K) as inside:
        seen = []
        for base, unit in ((0x1F0, 0), (0x1F0, 1), (0x170, 0), (0x170, 1)):
            inside.ask(f"outb {base + 6} {0xA0 | unit << 4}")
            inside.ask(f"outb {base + 7} 0xec")
            if inside.ask(f"inb {base + 7}") != "OK 0x0058":
                seen.append(None)
                continue
            words = [int(inside.ask(f"inw {base}")[3:], 16).to_bytes(2, "big") for _ in range(256)]
            data = b"".join(words)
            seen.append((data[20:40].strip(), data[54:94].strip()))
        default = b"E2KDISK HARDDISK"
        assert seen == [(b"E2K00001", default), None, (b"E2K00003", b"two"), (b"ONE", default)]


# -- names, lines and the end -----------------------------------------------------------------------------


def test_a_refusal_carries_the_name_of_the_program():
    for name in (ARM, "qemu-system-m68k"):
        done = subprocess.run([our_program(name), "-M", "q35"], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(f"{name}: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_status_0_and_the_image_whole(tmp_path, make_image, number):
    image = make_image("4M")
    options = ["-M", "virt", "-drive", f"id=d,if=none,file={image}", "-device", "virtio-blk-device,drive=d"]
    with LibQtest(tmp_path, our_program(), *options, "-qtest-log", str(tmp_path / "log")) as qemu:
        qemu.qmp("qmp_capabilities")
        driver = QtestDriver(qemu, legacy=True)
        driver.init()
        driver.write(0, b"\x77" * 4096)  # not flushed
        driver.start(IN, 0, b"", 512)
        driver.kick()
        assert driver.line()  # the wire is high at the end
        qemu.process.send_signal(number)
        with pytest.raises(AssertionError, match="has ended"):
            qemu.hear()
        assert qemu.process.wait(10) == 0
        assert qemu.events[-1]["event"] == "SHUTDOWN"
        assert qemu.events[-1]["data"] == {"guest": False, "reason": "host-signal"}
        assert qemu.errors() == ""
    log = (tmp_path / "log").read_text().splitlines()
    assert log[-1].endswith(f"IRQ lower {SLOT.wire}")
    assert_clean(image)
    assert qemu_img("convert", "-O", "raw", image, tmp_path / "raw") == ""
    assert (tmp_path / "raw").read_bytes()[:4096] == b"\x77" * 4096


def test_it_ends_with_its_parent_if_it_shall(tmp_path):
    command = f"{our_program()} -M virt -run-with exit-with-parent=on -chardev socket,id=q,path={tmp_path}/q,server=on"
    script = f"{command} -qtest chardev:q -qtest-log none & echo $!; until [ -e {tmp_path}/q ]; do sleep 0.02; done"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout.readline().strip().isdigit()
        assert shell.stdout.read() == ""  # at the end of all that have it open
    assert not (tmp_path / "q").exists()


def test_it_ends_when_the_last_client_has_gone(tmp_path):
    with LibQtest(tmp_path, our_program(), "-M", "virt") as qemu:
        qemu.sink.close()
        qemu.source.close()
        qemu._sockets[0].close()
        assert qemu.qmp("qmp_capabilities") == {}
        qemu._monitor.close()
        qemu._sockets[1].close()
        assert qemu.process.wait(10) == 0


@pytest.mark.parametrize(("closed", "said"), [("<&-", ""), (">&-", ""), ("2>&-", "OK little\n"), ("<&- >&- 2>&-", "")])
def test_a_closed_stream_is_nobody_and_never_the_image(make_image, closed, said):
    image = make_image("1M", format="raw")
    drive = f"-drive if=none,id=d,format=raw,file={image}"
    command = f"echo endianness | exec {our_program()} -M virt {drive} -qtest stdio {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, said)
    assert "mistake" not in done.stderr
    assert image.read_bytes() == bytes(1 << 20)


def test_the_end_of_a_file_of_commands_is_the_end(tmp_path):
    (tmp_path / "commands").write_text("endianness\nclock_step 5\nreadb 0x0")
    command = [our_program(), "-M", "virt", "-qtest", "stdio", "-qtest-log", tmp_path / "log"]
    with (tmp_path / "commands").open() as commands:
        done = subprocess.run(command, stdin=commands, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK little\nOK 5\n", "")
    log = [line.split("] ")[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert log == ["endianness", "OK little", "clock_step 5", "OK 5"] or log[0] == "OPENED"


def test_a_line_that_listens_takes_one_client_after_another(tmp_path):
    path = tmp_path / "qtest.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    command = [our_program(), "-M", "virt", "-chardev", f"socket,id=q,path={path},server=on,wait=off"]
    with subprocess.Popen(
        [*command, "-qtest", "chardev:q", "-qtest-log", "none", "-qmp", "stdio"], stdin=-1, stdout=-1
    ) as qemu:
        assert b"QMP" in qemu.stdout.readline()
        for number in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(path))
                client.sendall(b"clock_step 5\n")
                assert client.makefile().readline() == f"OK {5 * number + 5}\n"
        qemu.stdin.write(b'{"execute": "qmp_capabilities"} {"execute": "quit"}')
        qemu.stdin.flush()
        assert qemu.wait(20) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "line", [b"read 0x40000000 0x10000\n", b"memset 0x40000000 0x1000000 1\n"], ids=["long", "slow"]
)
def test_a_client_that_does_not_listen_is_not_heard_without_bound(tmp_path, line):
    with LibQtest(tmp_path, our_program(), "-M", "virt") as qemu:
        qemu._sockets[0].settimeout(0.3)
        with pytest.raises(TimeoutError):
            qemu._sockets[0].sendall(line * 1_000_000)
        resident = int(Path(f"/proc/{qemu.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        assert resident < 200 << 20
        assert qemu.qmp("qmp_capabilities") == {}  # the other client is served
        qemu.process.terminate()
        assert qemu.process.wait(20) == 0


def test_serial_ports_are_lines(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(tmp_path / "serial"))
        listener.listen(1)
        listener.settimeout(20)
        options = ["-chardev", f"socket,id=s0,path={tmp_path}/serial", "-serial", "chardev:s0"]
        command = [our_program(), "-M", "virt", "-qtest", "stdio", "-qtest-log", "none", *options]
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1) as qemu:
            with listener.accept()[0] as serial:
                serial.settimeout(20)
                qemu.stdin.write("writeb 0x09000000 0x41\n")
                assert serial.recv(1) == b"A"
                serial.sendall(b"B")
                found = ""
                for _ in range(10_000):
                    qemu.stdin.write("readl 0x09000018\nreadb 0x09000000\n")
                    found = [
                        line
                        for line in (
                            qemu.stdout.readline(),
                            qemu.stdout.readline(),
                        )
                        if line.endswith("42\n")
                    ]
                    if found:
                        break
                assert found
            qemu.terminate()
            assert qemu.wait(20) == 0


def test_a_device_that_switches_the_machine_off_ends_it(tmp_path):
    for number, (options, status) in enumerate((([], 0), (["-no-shutdown"], None))):
        place = tmp_path / str(number)
        place.mkdir()
        with LibQtest(place, our_program(RISCV), "-M", "virt", *options) as qemu:
            qemu.qmp("qmp_capabilities")
            qemu.store(0x10_0000, 4, 0x7777)
            qemu.store(0x10_0000, 4, 0x5555)
            if status is None:
                assert qemu.qmp("query-status")["status"] == "shutdown"
                assert qemu.qmp("quit") == {}
            else:
                with pytest.raises(AssertionError, match="has ended"):
                    qemu.hear()
            assert qemu.process.wait(20) == 0
        assert [event["event"] for event in qemu.events][:2] == ["RESET", "SHUTDOWN"]
        assert qemu.events[1]["data"] == {"guest": True, "reason": "guest-shutdown"}
