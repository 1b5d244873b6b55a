"""The pytest plug-in: guests, controllers and disk images for tests, and schedules and faults from a seed.

Fixtures    disk_image, drive, machine, bus, golden_images, booted, console, trace, schedule, faults
Options     --e2k-seed, --e2k-schedules, --e2k-replay, --e2k-shrink, --e2k-max-insns, --e2k-keep-images
Markers     e2k_boot, e2k_bus, e2k_faults, requires_firmware

Every test run of a project that has e2kdisk installed imports this module: what is heavy is imported when it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.lab.experiment import Experiment

if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.lab.board_bus import BoardBus
    from e2kdisk.lab.boots import Boots
    from e2kdisk.lab.event_log import EventLog
    from e2kdisk.lab.limited import LimitedMachine
    from e2kdisk.lab.schedule import Scenarios, Schedule
    from e2kdisk.machine.console import Console

SCHEDULES = 10
"""Of a test that uses `schedule` or `faults` and does not say how many."""
SEED_BITS = 32

MARKERS = (
    "e2k_boot(board, bios, steps, prompt, timeout, ram): what the fixture `booted` boots; default: Debian's U-Boot",
    "e2k_bus: the test takes the place of the guest's CPU (see the fixture `bus`); no machine may run",
    "e2k_faults(rules, schedules): what `schedule` and `faults` decide (a name of `e2kdisk lab list`), and how often",
    "requires_firmware(package, ...): left out where the Debian package is not installed",
)

_seed = pytest.StashKey[int]()
_experiment = pytest.StashKey[Experiment]()
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("e2kdisk", "e2kdisk: guests, disks, schedules and faults")
    group.addoption("--e2k-seed", type=int, metavar="N", help="what all schedules come from (random if left out)")
    group.addoption(
        "--e2k-schedules",
        type=_positive,
        metavar="N",
        help=f"run each test of `schedule` or `faults` with N schedules (default: its marker's, else {SCHEDULES})",
    )
    group.addoption("--e2k-replay", metavar="FILE", help="make the recorded run again instead of runs from the seed")
    group.addoption("--e2k-shrink", action="store_true", help="make a failing run short before it is reported")
    group.addoption(
        "--e2k-max-insns",
        type=_positive,
        metavar="N",
        help="instructions after which a machine of a test, or a run of a scenario, has hung",
    )
    group.addoption(
        "--e2k-keep-images",
        choices=("never", "failed", "always"),
        default="failed",
        help="whether disk images stay in the test's tmp_path (default: of failed tests)",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed and make the markers known."""
    seed: int | None = config.getoption("e2k_seed")
    if seed is None:
        # Under xdist the first process has chosen, else its workers would be of different opinions.
        seed = getattr(config, "workerinput", {}).get("e2k_seed")
    config.stash[_seed] = int.from_bytes(os.urandom(SEED_BITS // 8), "little") if seed is None else seed
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist the seed."""
    node.workerinput["e2k_seed"] = node.config.stash[_seed]


def pytest_report_header(config: pytest.Config) -> str:
    """The seed."""
    return f"e2kdisk: --e2k-seed={config.stash[_seed]}"


# -- what is run ------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that lets something be decided is one test for each schedule, so that xdist can spread them."""
    if "e2k_number" not in metafunc.fixturenames:
        return
    config = metafunc.config
    if config.getoption("e2k_replay"):
        metafunc.parametrize("e2k_number", [0], ids=["replay"])
        return
    number = config.getoption("e2k_schedules") or _faults_marker(metafunc.definition).get("schedules", SCHEDULES)
    metafunc.parametrize("e2k_number", range(number), ids=[f"schedule{n}" for n in range(number)])


def _faults_marker(item: pytest.Item) -> dict[str, Any]:
    """The arguments of @pytest.mark.e2k_faults by name."""
    marker = item.get_closest_marker("e2k_faults")
    return {} if marker is None else {**dict(zip(("rules", "schedules"), marker.args, strict=False)), **marker.kwargs}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obey @pytest.mark.requires_firmware("u-boot-qemu")."""
    from e2kdisk.lab.boots import missing_firmware

    for marker in item.iter_markers("requires_firmware"):
        for package in marker.args:
            try:
                missing = missing_firmware(package)
            except UsageError as error:
                pytest.fail(str(error), pytrace=False)
            if missing:
                pytest.skip(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add to the report of a failure what its guest said and how to make it happen again."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    experiment = item.stash.get(_experiment, None)
    if report.failed and experiment is not None:
        item.stash[_failed] = True
        for title, text in experiment.sections():
            report.sections.append((f"e2kdisk: {title}", text))
        lines = [f"rerun: {_rerun(item)}"]
        lines += [f"image: {path}" for path in experiment.kept_images(failed=True)]
        report.sections.append(("e2kdisk: how to run it again", "\n".join(lines)))
    return report  # type: ignore[return-value]


def _place(item: pytest.Item) -> tuple[Path, str]:
    """The file of a test and its name in there, whatever directory pytest takes for its root."""
    return item.path, item.nodeid.partition("::")[2]


def _rerun(item: pytest.Item, *, replay: str = "") -> str:
    """The command that runs one test again, from where pytest was started."""
    config, (path, name) = item.config, _place(item)
    words = ["python", "-m", "pytest"]
    replay = replay or config.getoption("e2k_replay") or ""
    if replay:
        # The recorded run stands in the place of all schedules; other parameters stay.
        name = re.sub(r"(?<=[\[-])schedule\d+(?=[\]-])", "replay", name)
        words += [f"--e2k-replay={replay}"]
    else:
        words += [f"--e2k-seed={config.stash[_seed]}"]
    for option in ("schedules", "max_insns"):
        value = config.getoption(f"e2k_{option}")
        if value is not None and not (option == "schedules" and replay):
            words.append(f"--e2k-{option.replace('_', '-')}={value}")
    words.append(f"{os.path.relpath(path, config.invocation_params.dir)}::{name}")
    return shlex.join(words)


def _seed_of(item: pytest.Item) -> int:
    """A seed of the test's own, so that it is the same when it runs alone or elsewhere."""
    path, name = _place(item)
    text = f"{item.config.stash[_seed]} {path.name}::{name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=SEED_BITS // 8).digest(), "little")


# -- fixtures ---------------------------------------------------------------------------------------


@pytest.fixture
def e2k_experiment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Experiment]:
    """What the other fixtures of a test share."""
    config, item = request.config, request.node
    limit, keep = config.getoption("e2k_max_insns"), config.getoption("e2k_keep_images")
    runs = item.get_closest_marker("e2k_bus") is None
    experiment = item.stash[_experiment] = Experiment(tmp_path, most_instructions=limit, runs=runs, keep=keep)
    yield experiment
    experiment.finish(failed=item.stash.get(_failed, False))


@pytest.fixture
def disk_image(e2k_experiment: Experiment) -> Callable[..., Path]:
    """Call `disk_image(size, format="qcow2", backing=None, fill=None, name="", **options) -> Path`.

    A new image: `size` in bytes, or as long as its `backing` file, which is never written. `fill` is a byte for the
    whole disk, or the bytes that it begins with; options are those of e2kdisk.create.
    """
    return e2k_experiment.image


@pytest.fixture
def drive(e2k_experiment: Experiment) -> Callable[..., Disk]:
    """Call `drive(size, **options) -> Disk`: an open disk on a new image, closed after the test.

    Arguments are those of `disk_image`. It goes behind a controller, or to `machine` or `bus` as one of their drives.
    """
    return e2k_experiment.drive


@pytest.fixture
def bus(e2k_experiment: Experiment) -> Callable[..., BoardBus]:
    """Call `bus(board="virt-arm64", **options) -> BoardBus`: a machine's RAM and registers, in the place of its CPU.

    read(address, size), write(address, size, value), load(address, length), store(address, data), finish().
    """
    return e2k_experiment.bus


@pytest.fixture
def machine(e2k_experiment: Experiment) -> Callable[..., LimitedMachine]:
    """Call `machine(board="virt-arm64", **options) -> Machine`; it is closed after the test.

    Its console is part of the report when the test fails, and `--e2k-max-insns` is its limit.
    """
    return e2k_experiment.machine


@pytest.fixture(scope="session")
def golden_images() -> list[Path]:
    """The disks that `booted` is booted with, as overlays; override it in your conftest.py (scope: session)."""
    return []


@pytest.fixture(scope="session")
def e2k_boots(tmp_path_factory: pytest.TempPathFactory) -> Boots:
    """The guests that this process has booted."""
    from e2kdisk.lab.boots import Boots

    return Boots(tmp_path_factory.mktemp)


@pytest.fixture
def booted(
    request: pytest.FixtureRequest, e2k_experiment: Experiment, e2k_boots: Boots, golden_images: list[Path]
) -> LimitedMachine:
    """A machine at its guest's prompt: booted once in a process, restored for each test, with disks of its own.

    The marker e2k_boot says what is booted; without it that is Debian's U-Boot on virt-arm64.
    """
    from e2kdisk.lab.boots import Boot

    if request.node.get_closest_marker("e2k_bus") is not None:
        pytest.fail("e2k_bus: no CPU runs in this test, so nothing can be booted", pytrace=False)
    marker = request.node.get_closest_marker("e2k_boot")
    try:
        boot = Boot() if marker is None else Boot(*marker.args, **marker.kwargs)
    except TypeError as error:
        pytest.fail(f"e2k_boot: {error}", pytrace=False)
    if boot.missing:
        pytest.skip(boot.missing)
    if "trace" in request.fixturenames:
        request.getfixturevalue("trace")  # it has to be there before the machine
    return e2k_boots.at_prompt(boot, golden_images, e2k_experiment)


@pytest.fixture
def console(booted: LimitedMachine) -> Console:
    """The console of `booted`: expect(pattern, timeout in seconds of the guest's time), send(text), command(text)."""
    return booted.console


@pytest.fixture
def trace(e2k_experiment: Experiment) -> EventLog:
    """The events of the test's machines: select(kind, source), hash; a controller takes it as its `trace`, too."""
    return e2k_experiment.start_trace()


@pytest.fixture(scope="session")
def e2k_scenarios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """The scenarios that this process has built."""
    from e2kdisk.lab.schedule import Scenarios

    scenarios = Scenarios(tmp_path_factory.mktemp)
    yield scenarios
    scenarios.close()


@pytest.fixture
def e2k_number() -> int:
    """Which of its schedules a test runs with; pytest_generate_tests says."""
    return 0


@pytest.fixture
def schedule(request: pytest.FixtureRequest, e2k_number: int, e2k_scenarios: Scenarios, tmp_path: Path) -> Schedule:
    """Decides latencies, orders and interrupts: `schedule.run(MyScenario)`, `schedule.choose("what", options)`."""
    return _make_schedule(request, e2k_scenarios, tmp_path, "timing")


@pytest.fixture
def faults(request: pytest.FixtureRequest, e2k_number: int, e2k_scenarios: Scenarios, tmp_path: Path) -> Schedule:
    """As `schedule`, and calls on the file may fail; @pytest.mark.e2k_faults("power") lets the power fail instead."""
    return _make_schedule(request, e2k_scenarios, tmp_path, "faults")


def _make_schedule(request: pytest.FixtureRequest, scenarios: Scenarios, directory: Path, default: str) -> Schedule:
    from e2kdisk.lab.record import Record
    from e2kdisk.lab.schedule import Manner, Schedule, rules_of

    item, config = request.node, request.config
    request.getfixturevalue("e2k_experiment")  # a failure of the test is then reported with its seed
    given = _faults_marker(item)
    try:
        file = config.getoption("e2k_replay")
        record = Record.load(file) if file else None
        seed = _seed_of(item) if record is None or record.seed is None else record.seed
        rules = rules_of(given.get("rules", default))
        manner = Manner(
            rules, seed, record, config.getoption("e2k_shrink"), most_instructions=config.getoption("e2k_max_insns")
        )
    except (UsageError, OSError) as error:
        pytest.fail(str(error), pytrace=False)
    return Schedule(scenarios, manner, directory, lambda file: _rerun(item, replay=file))
