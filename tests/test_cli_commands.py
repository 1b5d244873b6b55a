"""The command line as its users meet it: help, versions, and one line for whatever goes wrong."""

import errno
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import e2kdisk
from e2kdisk.errors import UsageError
from e2kdisk.machine import bundled
from e2kdisk.tools import firmware, main

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "PYTHONIOENCODING": "utf-8"}
COMMAND = [sys.executable, "-m", "e2kdisk"]


def run(*arguments, **options):
    """A process of its own, as a shell starts it."""
    return subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, timeout=60, check=False, **options
    )


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Call `call(*arguments) -> (status, output, errors)` in this process, in the test's own directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = main.main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def complaint(call):
    """Call `complaint(*arguments) -> the one line` of a command that must fail."""

    def complaint(*arguments):
        status, _, errors = call(*arguments)
        assert status == 1
        assert errors.startswith("e2kdisk: ")
        assert errors.count("\n") == 1
        return errors.removeprefix("e2kdisk: ").rstrip()

    return complaint


# -- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_each_command_with_an_example(call, arguments):
    status, output, _ = call(*arguments)
    assert status == 0
    for name, (what, example, _) in main.COMMANDS.items():
        assert f"  {name} " in output
        assert what in output
        assert f"$ {example}" in output
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_command_explains_itself_in_80_columns(call, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, output, _ = call(name, "--help")
    assert status == 0
    assert f"usage: e2kdisk {name}" in output
    assert max(map(len, output.splitlines())) <= 80
    assert call("help", name) == (0, output, "")


def test_version(call):
    assert call("--version") == (0, f"e2kdisk {e2kdisk.__version__}\n", "")


@pytest.mark.parametrize("name", ["", *main.COMMANDS])
def test_help_loads_nothing_heavy(name):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "e2kdisk", *([name] if name else []), "--help"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "e2kdisk" in imported
    assert not imported & {"numpy", "unicorn", "capstone", "asyncio", "cryptography", "logging", "fdt"}
    if not name:
        assert not imported & {"argparse", "dataclasses", "json", "inspect"}


# -- errors ---------------------------------------------------------------------------------------


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(complaint):
    assert complaint("inof") == "no command 'inof'; did you mean 'info'? see e2kdisk --help"
    assert complaint("xyzzy") == "no command 'xyzzy'; see e2kdisk --help"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["info"], "the following arguments are required: FILE; see e2kdisk info --help"),
        (["check", "a", "--foo"], "unrecognized arguments: --foo; see e2kdisk check --help"),
        (["create", "new.qcow2"], "new.qcow2: how large shall it be? for example: e2kdisk create new.qcow2 1G"),
        (["create", "new", "12X"], "SIZE=12X: not a size; write bytes, or a number with K, M, G or T"),
        (["create", "new", ""], "SIZE=: not a size; write bytes, or a number with K, M, G or T"),
        (["create", "new", "1M", "-b", "old"], "new: which format has old? add -F qcow2 or -F raw"),
        (["create", "new", "1M", "-o", "version=4"], "version=4: must be 2 or 3"),
        (["create", "new", "1M", "-o", "lazy_refcounts"], "option -o lazy_refcounts has no value; "
         "it is written lazy_refcounts=VALUE"),
        (["create", "new", "1M", "-o", "refcount_bits=x"], "refcount_bits=x: must be a number"),
        (["create", "new", "1M", "-o", "cluster_size=3K"], "cluster_size 3072 is not a power of two "
         "from 512 to 2097152"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_with_a_hint(complaint, arguments, line):
    assert complaint(*arguments) == line
    assert not Path("new").exists()


def test_an_unknown_option_is_answered_with_the_known_ones(complaint):
    line = complaint("create", "new", "1M", "-o", "clustersize=4K")
    assert line.startswith("unknown option -o 'clustersize'; did you mean 'cluster_size'? known are version, ")


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_missing_file_is_named_and_a_new_one_offered(complaint, command):
    line = complaint(command, "nowhere.qcow2")
    assert line.startswith("nowhere.qcow2: cannot be opened: No such file or directory")
    assert "e2kdisk create" in line


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_directory_is_no_image(complaint, command, tmp_path):
    assert complaint(command, tmp_path) == f"{tmp_path}: cannot be opened: it is a directory"


def test_a_file_that_is_no_image_cannot_be_checked(complaint, tmp_path):
    (tmp_path / "text").write_text("x" * 1000)
    assert complaint("check", "text") == "text: magic: 0x78787878 is not a qcow2 image"


def test_a_broken_header_names_its_field(complaint, call, tmp_path):
    call("create", "disk.qcow2", "1M")
    with (tmp_path / "disk.qcow2").open("r+b") as file:
        file.seek(20)
        file.write(b"\0\0\0\x28")
    for command in ("info", "check"):
        assert complaint(command, "disk.qcow2") == "disk.qcow2: cluster_bits: 40 is outside 9..21"


@contextmanager
def as_nobody():
    """Root may read and write everything; then be somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("mode", "command"), [(0o000, "info"), (0o444, "run")])
def test_a_file_without_permission_has_a_hint(complaint, call, tmp_path, mode, command):
    arguments = [command, "disk.qcow2"]
    if command == "run":
        arguments = ["run", "--bios", "demo", "--script", os.devnull, "--drive", "disk.qcow2"]
    call("create", "disk.qcow2", "1M")
    assert call(*arguments)[0] == 0  # and every module is loaded, which nobody may not do either
    tmp_path.chmod(0o755)
    (tmp_path / "disk.qcow2").chmod(mode)
    with as_nobody():
        line = complaint(*arguments)
    assert line.startswith("disk.qcow2: cannot be opened: Permission denied (")
    assert "readonly=on" in line


@pytest.mark.needs("qemu-utils")
def test_an_image_that_somebody_writes_to_is_locked(complaint, call, tmp_path):
    call("create", "disk.qcow2", "1M")
    holder = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", "disk.qcow2"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        holder.stdin.write("length\n")
        holder.stdin.flush()
        assert "1 MiB" in holder.stdout.readline()
        for command in (["info", "disk.qcow2"], ["check", "disk.qcow2"], ["create", "disk.qcow2", "2M"]):
            assert complaint(*command).startswith("disk.qcow2: locked: ")
        assert call("info", "--force-share", "disk.qcow2")[0] == 0
        holder.communicate("quit\n")
    assert "1 MiB" in call("info", "disk.qcow2")[1]


def test_a_full_disk_for_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "--help"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"e2kdisk: standard output: No space left on device\n"


def test_a_reader_that_goes_away_is_no_error():
    for arguments in (["--help"], ["run", "--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*COMMAND, *arguments], env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, check=False
        )
        os.close(writer)
        assert done.stderr == b""


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_outputs_are_no_traceback(closed):
    done = run("info", "nowhere", preexec_fn=lambda: os.close(closed))
    assert done.returncode == 1
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"nowhere" not in done.stdout


def test_a_file_name_may_have_any_bytes(tmp_path):
    name = b"\xff\xfe disk.qcow2"
    assert run("create", name, "1M", cwd=tmp_path).returncode == 0
    done = run("info", name, cwd=tmp_path)
    assert done.returncode == 0
    assert name in done.stdout
    assert name + b"2: cannot be opened" in run("info", name + b"2", cwd=tmp_path).stderr


def test_any_locale_prints_any_name(tmp_path):
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    (tmp_path / "größe").touch()
    done = subprocess.run([*COMMAND, "info", tmp_path / "größe"], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"gr?" in done.stdout


def test_ctrl_c_is_one_line_and_130(monkeypatch, call):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_run", interrupted)
    assert call("info", "x") == (130, "", "e2kdisk: interrupted\n")


def test_an_error_of_the_host_names_the_file(monkeypatch, call):
    def fail(arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "disk.qcow2")

    monkeypatch.setattr(main, "_run", fail)
    assert call("info", "x") == (1, "", "e2kdisk: disk.qcow2: Input/output error\n")


# -- create, info, check --------------------------------------------------------------------------


def test_create_says_what_it_made_and_info_agrees(call):
    status, output, _ = call("create", "disk.qcow2", "64M", "-o", "cluster_size=4K,version=2")
    assert (status, output) == (0, "disk.qcow2: qcow2 version 2, 64 MiB, clusters of 4 KiB\n")
    status, output, _ = call("info", "disk.qcow2")
    assert status == 0
    for line in ("format        qcow2 version 2 (compat 0.10)", "virtual size  64 MiB (67108864 bytes)"):
        assert line in output
    assert call("create", "-q", "disk.qcow2", "1M")[:2] == (0, "")


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize(
    "options", [[], ["-o", "compat=0.10"], ["-o", "lazy_refcounts=on", "-o", "refcount_bits=1,cluster_size=512"]]
)
def test_info_says_in_json_what_qemu_img_says(call, qemu_img, options):
    call("create", "base.qcow2", "8M")
    call("create", "disk.qcow2", "-b", "base.qcow2", "-F", "qcow2", *options)
    ours = json.loads(call("info", "--json", "disk.qcow2")[1])
    theirs = json.loads(qemu_img("info", "--output=json", Path("disk.qcow2").absolute()))
    for name in ("format", "virtual-size", "cluster-size", "dirty-flag", "actual-size", "backing-filename"):
        assert ours[name] == theirs[name], name
    assert ours["backing-filename-format"] == theirs["backing-filename-format"]
    data = ours["format-specific"]["data"]
    for name, value in theirs["format-specific"]["data"].items():
        assert data.get(name, False) == value, name


def test_info_of_other_files(call, tmp_path):
    (tmp_path / "disk.raw").write_bytes(bytes(4096))
    (tmp_path / "disk.vmdk").write_bytes(b"KDMV" + bytes(4092))
    assert json.loads(call("info", "--json", "disk.raw")[1])["virtual-size"] == 4096
    assert "vmdk, which e2kdisk does not read" in call("info", "disk.vmdk")[1]


def test_check_tells_clean_corrupt_and_leaking_images_apart(call, tmp_path):
    call("create", "disk.qcow2", "1M")
    status, output, _ = call("check", "disk.qcow2")
    assert status == 0
    assert output.startswith("disk.qcow2: consistent; 0 of 16 clusters in use")
    image = tmp_path / "disk.qcow2"
    good = image.read_bytes()
    block = int.from_bytes(good[65536 : 65536 + 8], "big")
    for count, status, word in ((0, 2, "1 corruption"), (2, 3, "1 leaked cluster")):
        image.write_bytes(good[:block] + count.to_bytes(2, "big") + good[block + 2 :])
        found, output, _ = call("check", "disk.qcow2")
        assert found == status
        assert word in output.splitlines()[-1]
        facts = json.loads(call("check", "--json", "disk.qcow2")[1])
        assert facts["corruptions"] + facts["leaks"] == 1


# -- firmware -------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", bundled.GUESTS)
def test_a_checkout_has_a_guest_for_each_board(board):
    assert Path(bundled.find_guest(board)).parent == ROOT / "firmware" / "images"
    assert firmware.load_bios(board, "demo") == Path(bundled.find_guest(board)).read_bytes()


def test_an_installed_package_has_its_own_guests(monkeypatch, tmp_path):
    images = tmp_path / "site-packages" / "e2kdisk" / "firmware_images"
    images.mkdir(parents=True)
    (images / "guest-arm64.bin").write_bytes(b"guest")
    monkeypatch.setattr(e2kdisk, "__file__", str(images.parent / "__init__.py"))
    assert firmware.load_bios("virt-arm64", "demo") == b"guest"
    with pytest.raises(UsageError, match=r"guest-riscv64\.bin is not in .*install e2kdisk again"):
        bundled.find_guest("virt-riscv64")


def test_a_missing_firmware_says_where_others_are(tmp_path):
    (tmp_path / "empty").touch()
    for name, what in (("nowhere", "No such file"), ("", "Is a directory"), ("empty", "is empty")):
        with pytest.raises(UsageError, match=f"^bios .*{what}.*--bios demo .*/qemu_arm64/u-boot.bin$"):
            firmware.load_bios("virt-arm64", str(tmp_path / name))
