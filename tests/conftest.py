"""What every test may ask for: tiers, Debian's programs as oracles, images made by qemu-img."""

from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import oracles

COUNTED = "counted: "


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --tier and --crash-states."""
    parser.addoption(
        "--tier",
        choices=("fast", "slow", "all"),
        default="fast",
        help="fast (default): without the tests marked slow; slow: only those; all: both",
    )
    parser.addoption(
        "--crash-states",
        type=int,
        default=20_000,
        metavar="N",
        help="how many contents after a power cut the slow tests of tests/test_engine_crash.py try (default 20000)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let random tests search longer in the slow tier, and repeat themselves exactly in CI."""
    examples = 100 if config.getoption("tier") == "fast" else 200
    settings.register_profile(
        "e2kdisk",
        max_examples=examples,
        derandomize=oracles.in_ci(),
        print_blob=True,
        # How long an example takes says more about the machine's other work than about us.
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("e2kdisk")


def pytest_report_header() -> str:
    """Say before the first test what will be left out."""
    absent = " ".join(oracles.missing())
    return f"left out: tests that need Debian packages {absent}" if absent else "oracles: all here"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the chosen tier."""
    tier = config.getoption("tier")
    if tier == "all":
        return
    wanted = [item for item in items if (item.get_closest_marker("slow") is not None) == (tier == "slow")]
    if len(wanted) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up what tests have counted, with the fixture `counted`."""
    sums: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for what, number in report.user_properties:
            if what.startswith(COUNTED):
                sums[what.removeprefix(COUNTED)] += number
    for what, number in sums.items():
        terminalreporter.write_line(f"{number:,} {what}")


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Call `counted("crash states", 100)`: the sums over all tests are printed at the end of the run."""
    return lambda what, number: record_property(COUNTED + what, number)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obey @pytest.mark.needs("qemu-utils", ...)."""
    for marker in item.iter_markers("needs"):
        oracles.require(*marker.args)


@pytest.fixture(scope="session")
def qemu_img() -> Callable[..., str]:
    """Call `qemu_img(*args, check=True, timeout=60) -> str`, see tests.oracles."""
    oracles.require("qemu-utils")
    return oracles.qemu_img


@pytest.fixture(scope="session")
def qemu_io() -> Callable[..., str]:
    """Call `qemu_io(image, *commands, format="qcow2", read_only=False, check=True) -> str`, see tests.oracles."""
    oracles.require("qemu-utils")
    return oracles.qemu_io


@pytest.fixture(scope="session")
def assert_clean() -> Callable[..., None]:
    """Call `assert_clean(image, allow_leaks=False)`, see tests.oracles."""
    oracles.require("qemu-utils")
    return oracles.assert_clean


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., Path]:
    """Call `make_image(size=None, *, name=None, version=3, cluster_size=None, backing=None, ...) -> Path`.

    A new image in the test's own directory, made by qemu-img; the other arguments are tests.oracles.create_image's.
    """
    oracles.require("qemu-utils")
    numbers = count()

    def make(size: int | str | None = None, *, name: str | None = None, **options: Any) -> Path:
        name = name or f"disk{next(numbers)}.{options.get('format', 'qcow2')}"
        return oracles.create_image(tmp_path / name, size, **options)

    return make
