"""QEMU's command line, as far as we model it: a table of options, each of which adds to a Configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from e2kdisk.block.tree import Tree
from e2kdisk.errors import UsageError
from e2kdisk.exports.qtest import option_text
from e2kdisk.exports.qtest.drives import DRIVE_FILE
from e2kdisk.exports.qtest.models import MachineModel, types_of
from e2kdisk.exports.qtest.option_text import Properties


class Told(Exception):
    """The command line only asks for a text: -version, -machine help."""


@dataclass(slots=True)
class Configuration:
    """What a command line asks for, before anything is opened."""

    machines: tuple[MachineModel, ...]
    program: str
    machine: MachineModel | None = None
    ram: int | None = None
    """Bytes."""
    bios: str = ""
    cpu: str = ""
    chardevs: list[tuple[str, Tree]] = field(default_factory=list)
    blocks: list[tuple[str, str, Tree]] = field(default_factory=list)
    """-drive and -blockdev in their order: the option for messages, its kind, what it says."""
    devices: list[tuple[str, Tree]] = field(default_factory=list)
    qtest: str | None = None
    qtest_log: str | None = None
    monitors: list[str] = field(default_factory=list)
    """Where QMP is spoken: chardev:ID or a short form."""
    serials: list[str] = field(default_factory=list)
    legacy_mmio: bool = True
    stopped: bool = False
    off_ends: bool = True
    ends_with_parent: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the command line."""

    take: Callable[[Configuration, str], None]
    argument: bool = True


def parse(arguments: Sequence[str], machines: tuple[MachineModel, ...], program: str) -> Configuration:
    """Read a command line. Raises UsageError, Told."""
    configuration = Configuration(machines, program)
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            raise UsageError(f"{word}: a drive is given as -drive file={word}")
        option = OPTIONS.get(word[2:] if word.startswith("--") else word[1:])
        if option is None:
            raise UsageError(f"{word}: invalid option")
        text = ""
        if option.argument:
            if not rest:
                raise UsageError(f"{word}: requires an argument")
            text = rest.pop(0)
        with located(f"{word} {text}".rstrip()):
            option.take(configuration, text)
    if configuration.machine is None:
        names = " or ".join(model.name for model in machines)
        raise UsageError(f"No machine specified, and there is no default; use -machine {names}")
    _check_cpu(configuration, configuration.machine)
    return configuration


class located:
    """Errors inside name the option that they are of."""

    def __init__(self, option: str) -> None:
        self._option = option

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        if isinstance(error, UsageError):
            raise UsageError(f"{self._option}: {error}") from None


# -- options ------------------------------------------------------------------------------------------


def _machine(configuration: Configuration, text: str) -> None:
    if text in ("help", "?"):
        lines = [f"{model.name:20} {model.board or 'empty machine'}" for model in configuration.machines]
        raise Told("\n".join(["Supported machines are:", *lines]))
    given = Properties("machine", option_text.parse(text, "type"))
    name = given.text("type") or given.text("driver")
    found = [model for model in configuration.machines if model.name == name]
    if name and not found:
        known = ", ".join(model.name for model in configuration.machines)
        raise UsageError(f"unsupported machine type '{name}'; known are {known}")
    if name:
        configuration.machine = found[0]
    if accel := given.text("accel"):
        _accelerator(configuration, accel)
    given.must_be("gic-version", "2", "max")
    given.ignore("usb", "graphics", "acpi", "mem-merge", "dump-guest-core", "dtb-randomness", "highmem", "its")
    given.must_be("secure", "off")
    given.must_be("virtualization", "off")
    given.finish()


ACCELERATORS = ("qtest", "tcg", "kvm")
"""All the same: the CPU never runs. Test programs name them in the order of their preference."""


def _accelerator(configuration: Configuration, text: str) -> None:
    if text in ("help", "?"):
        raise Told("Accelerators supported in QEMU binary:\nqtest")
    for name in str(option_text.parse(text, "accel").get("accel", "")).split(":"):
        if name not in ACCELERATORS:
            raise UsageError(f"invalid accelerator {name}")


def _cpu(configuration: Configuration, text: str) -> None:
    configuration.cpu = text.partition(",")[0]


def _check_cpu(configuration: Configuration, model: MachineModel) -> None:
    name = configuration.cpu.removesuffix("-arm-cpu")
    if name and name not in model.cpus:
        known = f"known are {', '.join(model.cpus)}" if model.cpus else f"machine {model.name} has none"
        raise UsageError(f"unable to find CPU model '{name}'; {known}")


def _memory(configuration: Configuration, text: str) -> None:
    given = Properties("m", option_text.parse(text, "size"))
    size = given.text("size")
    given.must_be("slots", "0")
    given.ignore("maxmem")
    given.finish()
    configuration.ram = option_text.ram_size(size)


def _smp(configuration: Configuration, text: str) -> None:
    given = Properties("smp", option_text.parse(text, "cpus"))
    for key in ("cpus", "sockets", "dies", "clusters", "cores", "threads", "maxcpus"):
        if given.number(key, 1) != 1:
            raise UsageError("one CPU is all that there is")
    given.finish()


def _drive(configuration: Configuration, text: str) -> None:
    configuration.blocks.append((f"-drive {text}", "drive", option_text.parse(text, renamed={"file": DRIVE_FILE})))


def _blockdev(configuration: Configuration, text: str) -> None:
    configuration.blocks.append((f"-blockdev {text}", "blockdev", option_text.parse(text, "driver")))


_DISK_TYPES = ("virtio-blk-pci-base", "virtio-device", "ide-device")


def _device(configuration: Configuration, text: str) -> None:
    if text in ("help", "?"):
        names = [name for name, kind in types_of(configuration.machines).items() if kind.parent in _DISK_TYPES]
        raise Told("\n".join(["Storage devices:", *(f'name "{name}"' for name in names)]))
    configuration.devices.append((f"-device {text}", option_text.parse(text, "driver")))


def _global(configuration: Configuration, text: str) -> None:
    name, equals, value = text.partition("=")
    if name != "virtio-mmio.force-legacy" or not equals:
        raise UsageError("only virtio-mmio.force-legacy can be set")
    configuration.legacy_mmio = bool(Properties("global", {"value": value}).switch("value"))


def _chardev(configuration: Configuration, text: str) -> None:
    configuration.chardevs.append((f"-chardev {text}", option_text.parse(text, "backend")))


def _qtest(configuration: Configuration, text: str) -> None:
    configuration.qtest = text


def _qtest_log(configuration: Configuration, text: str) -> None:
    configuration.qtest_log = text


def _mon(configuration: Configuration, text: str) -> None:
    given = Properties("mon", option_text.parse(text, "chardev"))
    name, mode = given.text("chardev"), given.text("mode", "readline")
    given.ignore("pretty")
    given.finish()
    if mode != "control":
        raise UsageError("only QMP is spoken; it is asked for as mode=control")
    configuration.monitors.append(f"chardev:{name}")


def _qmp(configuration: Configuration, text: str) -> None:
    if text != "none":
        configuration.monitors.append(text)


def _serial(configuration: Configuration, text: str) -> None:
    configuration.serials.append(text)


def _bios(configuration: Configuration, text: str) -> None:
    configuration.bios = text


def _stopped(configuration: Configuration, text: str) -> None:
    configuration.stopped = True


def _run_with(configuration: Configuration, text: str) -> None:
    given = Properties("run-with", option_text.parse(text))
    configuration.ends_with_parent = bool(given.switch("exit-with-parent", False))
    given.finish()


def _no_shutdown(configuration: Configuration, text: str) -> None:
    configuration.off_ends = False


def _version(configuration: Configuration, text: str) -> None:
    import e2kdisk

    raise Told(f"QEMU emulator version 7.2.0 (e2kdisk {e2kdisk.__version__}: devices for qtest, without a CPU)")


def _help(configuration: Configuration, text: str) -> None:
    from textwrap import fill

    names = sorted(f"-{name}" for name in OPTIONS)
    raise Told(
        f"""\
usage: {configuration.program} -machine NAME -qtest LINE [OPTION...]

QEMU's qtest protocol and QMP over the boards of e2kdisk. The CPU never runs: a
test program reads and writes registers and memory in its place.

  -machine NAME            {" or ".join(model.name for model in configuration.machines)}
  -qtest LINE              where commands come from: stdio, unix:PATH (somebody
                           listens there), unix:PATH,server=on, chardev:ID
  -qmp LINE                the same for QMP
  -drive if=none,id=D,file=FILE
                           a disk; -device KIND,drive=D gives it a controller
  -qtest-log FILE          a record of all lines; the standard error unless said

-machine help and -device help list what there is. All options, spelled as in
QEMU 7.2, for what is modelled:
{fill(" ".join(names), 78, break_on_hyphens=False)}

exit status: 0 at quit, a signal, or when no client is left; 1 for an error"""
    )


def _nothing(configuration: Configuration, text: str) -> None:
    """Makes no difference here."""


def _only(*values: str) -> Callable[[Configuration, str], None]:
    """For what can only be left out."""

    def take(configuration: Configuration, text: str) -> None:
        if text.partition(",")[0] not in values:
            raise UsageError(f"not modelled; it can be {' or '.join(values)}")

    return take


OPTIONS: dict[str, Option] = {
    **dict.fromkeys(("machine", "M"), Option(_machine)),
    "accel": Option(_accelerator),
    "cpu": Option(_cpu),
    "m": Option(_memory),
    "smp": Option(_smp),
    "bios": Option(_bios),
    "drive": Option(_drive),
    "blockdev": Option(_blockdev),
    "device": Option(_device),
    "global": Option(_global),
    "chardev": Option(_chardev),
    "qtest": Option(_qtest),
    "qtest-log": Option(_qtest_log),
    "mon": Option(_mon),
    "qmp": Option(_qmp),
    "serial": Option(_serial),
    "S": Option(_stopped, argument=False),
    "run-with": Option(_run_with),
    "no-shutdown": Option(_no_shutdown, argument=False),
    **dict.fromkeys(("monitor", "parallel", "net", "nic", "vga", "audio", "audiodev"), Option(_only("none", "null"))),
    "display": Option(_only("none")),
    **dict.fromkeys(("nodefaults", "nographic", "no-user-config", "no-reboot"), Option(_nothing, argument=False)),
    **dict.fromkeys(("name", "uuid", "rtc", "msg", "boot"), Option(_nothing)),
    **dict.fromkeys(("version", "V"), Option(_version, argument=False)),
    **dict.fromkeys(("help", "h"), Option(_help, argument=False)),
}
"""Name without its hyphens -> what it does."""
