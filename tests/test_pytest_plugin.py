"""The pytest plug-in in a stranger's project: fixtures, options, and a report that says how to make it happen again."""

import html
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.lab import boots
from e2kdisk.lab.boots import Boot, Boots, missing_firmware
from e2kdisk.lab.experiment import Experiment
from e2kdisk.machine.bundled import find_guest
from e2kdisk.machine.machine import StopReason

pytestmark = pytest.mark.guest
ROOT = Path(__file__).resolve().parent.parent

HANGS = """
def test_hangs(machine, trace):
    machine(bios=b"\\0\\0\\0\\x14", ram=16 << 20).run()  # b .
"""
CHOOSES = """
def test_chooses(schedule):
    assert schedule.choose("number", 1 << 30) < 0
"""
BREAKS = """
from test_fault_exploration import Writer

class Broken(Writer):
    def act(self, rig):
        super().act(rig)
        made = [decision for decision in rig.decisions.made if "latency" in decision.name]
        assert sum(decision.choice > 2 for decision in made) < 4

def test_breaks(schedule):
    schedule.run(Broken)
"""

BUS = """
import pytest

pytestmark = pytest.mark.e2k_bus

def test_registers_and_memory_of_a_board_with_two_drives(bus, drive):
    board = bus(drives=[drive(1 << 20, fill=7), drive(1 << 19, format="raw")], ram=16 << 20)
    slots = range(0xA00_0000, 0xA00_4000, 0x200)  # virtio-mmio of virt-arm64: magic, device 2 is a disk
    disks = [at for at in slots if board.read(at, 4) == 0x74726976 and board.read(at + 8, 4) == 2]
    assert sorted(board.read(at + 0x100, 8) for at in disks) == [1024, 2048]  # their capacity in sectors
    board.write(0x4000_0000, 4, 0x61746164)
    assert board.load(0x4000_0000, 5) == b"data\\0"
    board.finish()

def test_a_drive_is_a_disk(drive):
    first, second = drive(4096, fill=b"first"), drive(4096)
    assert first.pread(0, 5) == b"first"
    assert first.scheduler is second.scheduler

def test_no_cpu_runs(machine):
    machine(bios=b"\\0\\0\\0\\x14", ram=16 << 20).run()

def test_nothing_boots(booted):
    pass
"""


@pytest.fixture
def project(tmp_path):
    """Call `project(test source, *options) -> CompletedProcess`: pytest in a directory with nothing else of ours."""

    def run(source, *options, plugins=("e2kdisk.lab.pytest_plugin",), path=()):
        if source:
            (tmp_path / "test_it.py").write_text(source)
        loaded = [word for plugin in plugins for word in ("-p", plugin)]
        environment = os.environ | {
            # The same whether our own metadata names the entry point here (after an installation) or not yet.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": shlex.join(
                [*loaded, "-W", "error", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t"]
            ),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *map(str, path)]),
            "PYTHONWARNINGS": "",
        }
        if not plugins:
            del environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        command = [sys.executable, "-m", "pytest", *map(str, options or ["test_it.py"])]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def outcomes(done):
    """{"passed": 3, ...} of the last line."""
    last = done.stdout.splitlines()[-1].partition(" in ")[0]
    return {what: int(number) for number, what in re.findall(r"(\d+) (\w+)", last)}


def command_of(done, word):
    """The options of the command that the report offers."""
    words = shlex.split(re.search(rf"{word}: (.*)", done.stdout)[1])
    assert words[:3] == ["python", "-m", "pytest"]
    return words[3:]


def test_importing_the_plugin_imports_nothing_heavy():
    code = "import sys, e2kdisk.lab.pytest_plugin; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "e2kdisk" in imported
    assert not imported & {"unicorn", "numpy", "cryptography", "capstone", "fdt"}


@pytest.mark.needs("u-boot-qemu")
@pytest.mark.parametrize(
    ("name", "passed"),
    [("guest_boot", 3), ("device_model", 2), pytest.param("fault_exploration", 3 * 13, marks=pytest.mark.slow)],
)
def test_an_example_passes_in_a_strangers_project(project, tmp_path, name, passed):
    shutil.copy(ROOT / "examples" / f"test_{name}.py", tmp_path)
    done = project("", f"test_{name}.py", "--e2k-schedules", "13")
    assert outcomes(done) == {"passed": passed}, done.stdout


def test_the_entry_point_of_the_package_is_enough(project, tmp_path):
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    metadata = tmp_path / "site" / "stranger-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (metadata / "entry_points.txt").write_text("".join(["[pytest11]\n", *lines]))
    done = project("def test_it(disk_image):\n    disk_image(512)\n", plugins=(), path=[tmp_path / "site"])
    assert outcomes(done) == {"passed": 1}, done.stdout + done.stderr


def test_a_failure_names_its_seed_and_the_command_that_repeats_it(project):
    first = project(CHOOSES)
    assert outcomes(first) == {"failed": 10}
    seed = re.search(r"^e2kdisk: (--e2k-seed=\d+)$", first.stdout, re.MULTILINE)[1]
    again = command_of(first, "rerun")
    assert again == [seed, "test_it.py::test_chooses[schedule0]"]
    chosen = re.findall(r"^E .*assert (\d+) < 0", first.stdout, re.MULTILINE)
    assert len(set(chosen)) == 10
    assert re.findall(r"^E .*assert (\d+) < 0", project(CHOOSES, *again).stdout, re.MULTILINE) == chosen[:1]
    assert chosen[0] not in project(CHOOSES, *again[1:], "--e2k-seed=1").stdout


def test_all_workers_of_xdist_have_one_seed(project):
    plugins = ("e2kdisk.lab.pytest_plugin", "xdist.plugin")
    done = project(CHOOSES, "test_it.py", "-n", "2", plugins=plugins)
    assert outcomes(done) == {"failed": 10}
    assert {"gw0", "gw1"} <= set(re.findall(r"\[(gw\d)\]", done.stdout))
    assert len(set(re.findall(r"--e2k-seed=\d+", done.stdout))) == 1


def test_a_test_marked_e2k_bus_takes_the_place_of_the_cpu(project):
    done = project(BUS)
    assert outcomes(done) == {"failed": 1, "passed": 2, "error": 1}, done.stdout
    assert "marked e2k_bus: it takes the place of the CPU, so no CPU runs in it" in done.stdout
    assert "e2k_bus: no CPU runs in this test, so nothing can be booted" in done.stdout
    assert outcomes(project(BUS, "test_it.py", "-m", "not e2k_bus")) == {"deselected": 4}


def test_a_run_that_breaks_a_contract_is_written_replayed_and_shrunk(project, tmp_path):
    shutil.copy(ROOT / "examples" / "test_fault_exploration.py", tmp_path)
    first = project(BREAKS, "test_it.py", "--e2k-seed=1", "--e2k-schedules=4", "-x")
    assert outcomes(first)["failed"] == 1, first.stdout
    options = command_of(first, "replay")
    file = tmp_path / "failure.json"
    shutil.copy(options[0].removeprefix("--e2k-replay="), file)
    replay = [f"--e2k-replay={file}", options[1]]
    assert options[1] == "test_it.py::test_breaks[replay]"
    page = Path(re.search(r"report: (\S+\.html)", first.stdout)[1])
    assert page.parent == Path(options[0].removeprefix("--e2k-replay=")).parent
    assert shlex.join(options) in html.unescape(page.read_text())
    decisions = re.search(r"(\d+ decisions, \d+ of them)", first.stdout)[1]
    again = project(BREAKS, *replay)
    assert outcomes(again) == {"failed": 1}
    assert decisions in again.stdout
    # The command line makes the very same run of it.
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "e2kdisk", "lab", "replay", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (2, "")
    assert decisions in done.stdout
    shorter = project(BREAKS, *replay, "--e2k-shrink")
    # Four long latencies are what it asks for, of about a hundred that were not natural.
    assert int(re.search(r"(\d+) of them not the natural", shorter.stdout)[1]) in range(4, 10)
    # With the fault repaired the file is a test that passes.
    assert outcomes(project(BREAKS.replace("< 4", "< 4000"), *replay)) == {"passed": 1}


def test_a_guest_that_hangs_reaches_the_limit_and_its_console_is_shown(project):
    done = project(HANGS, "test_it.py", "--e2k-max-insns", "100000")
    assert outcomes(done) == {"failed": 1}
    assert "100000 instructions, which is the limit (--e2k-max-insns)" in done.stdout
    assert "console of machine 0 (virt-arm64, 100000 instructions)" in done.stdout
    assert "--e2k-max-insns=100000 test_it.py::test_hangs" in done.stdout


def test_a_run_of_a_scenario_reaches_the_limit_too(project, tmp_path):
    shutil.copy(ROOT / "examples" / "test_fault_exploration.py", tmp_path)
    name = "test_fault_exploration.py::test_any_latency_any_order_of_completions"
    done = project("", name, "--e2k-max-insns=1000", "--e2k-schedules=2")
    assert outcomes(done) == {"failed": 2}
    assert "InstructionLimit: the guest has run for 1000 instructions" in done.stdout


@pytest.mark.parametrize(("keep", "kept"), [("never", set()), ("failed", {"bad"}), ("always", {"good", "bad"})])
def test_images_stay_as_asked(project, tmp_path, keep, kept):
    source = "def test_good(disk_image):\n    disk_image(1 << 20, name='good', fill=7)\n"
    source += "def test_bad(disk_image):\n    disk_image(512, format='raw', name='bad')\n    raise OSError\n"
    done = project(source, "test_it.py", f"--e2k-keep-images={keep}")
    assert outcomes(done) == {"failed": 1, "passed": 1}
    assert {path.name for path in tmp_path.glob("t/test_*/*") if path.is_file()} == kept
    assert ("image: " in done.stdout) == ("bad" in kept)


def test_firmware_that_is_not_here_leaves_a_test_out_and_names_the_package(project, tmp_path):
    (tmp_path / "conftest.py").write_text(
        "from e2kdisk.lab import boots\nboots.FIRMWARE['gone-qemu'] = {'virt-arm64': '/no/such/file'}\n"
    )
    source = "import pytest\n@pytest.mark.requires_firmware('gone-qemu')\ndef test_marked(): pass\n"
    source += "@pytest.mark.e2k_boot(bios='gone-qemu')\ndef test_booted(console): pass\n"
    done = project(source, "test_it.py", "-rs")
    assert outcomes(done) == {"skipped": 2}
    assert done.stdout.count("needs Debian package gone-qemu") == 2


@pytest.mark.parametrize(
    ("marker", "fixture", "why"),
    [
        ("requires_firmware('nobody')", "tmp_path", "unknown firmware 'nobody'; known are u-boot-qemu"),
        ("e2k_boot(speed=3)", "booted", "unexpected keyword argument 'speed'"),
        ("e2k_faults('nothing')", "faults", "unknown rules 'nothing'; known are plain"),
    ],
)
def test_a_marker_that_makes_no_sense_is_an_error_of_one_line(project, marker, fixture, why):
    done = project(f"import pytest\n@pytest.mark.{marker}\ndef test_it({fixture}): pass\n", "test_it.py", "-x")
    assert done.returncode == 1
    assert why in done.stdout
    assert "pytest_plugin.py" not in done.stdout


def test_a_prompt_is_reached_once_and_each_test_has_its_own_disk(tmp_path, monkeypatch):
    golden = tmp_path / "golden.raw"
    golden.write_bytes(b"e2kdisk-guest first=8 sectors=32 inflight=4".ljust(1 << 20, b"\0"))
    before, brought_up = golden.read_bytes(), []
    bring_up = Boots._bring_up
    monkeypatch.setattr(Boots, "_bring_up", lambda *given: brought_up.append(1) or bring_up(*given))
    made = Boots(lambda name: (tmp_path / name).mkdir() or tmp_path / name)
    boot = Boot(bios=find_guest("virt-arm64"), steps=(), prompt="virtio-mmio version", ram=16 << 20)
    ends = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        test = Experiment(tmp_path / name)
        machine = made.at_prompt(boot, [golden], test)
        assert machine.disks[0].pread(1 << 19, 512) == bytes(512)
        machine.disks[0].pwrite(1 << 19, b"mine")
        assert machine.run() is StopReason.POWER_OFF
        assert "PASS" in machine.console.transcript
        ends.append((machine.instructions, machine.console.transcript))
        test.finish(failed=False)
    assert ends[0] == ends[1]
    assert len(brought_up) == 1
    assert golden.read_bytes() == before


def test_firmware_of_the_table_is_what_debian_installs(monkeypatch):
    with pytest.raises(UsageError, match="known are"):
        missing_firmware("bios")
    monkeypatch.setitem(boots.FIRMWARE, "u-boot-qemu", {"virt-arm64": "/no/such/file"})
    assert missing_firmware("u-boot-qemu").startswith("needs Debian package u-boot-qemu (apt-get install u-boot-qemu)")
