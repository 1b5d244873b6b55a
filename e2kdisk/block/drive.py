"""The --drive option of the command line: "file=disk.qcow2,format=qcow2,if=virtio", spelled as for qemu -drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from e2kdisk.block.disk import Disk
from e2kdisk.block.open import open_disk
from e2kdisk.block.options import cache_mode
from e2kdisk.block.sizes import parse_size
from e2kdisk.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERFACES = ("virtio", "virtio-pci", "ide", "ahci", "none")
"""Which controller a drive is for; whether a board has it, the board says."""


@dataclass(slots=True)
class DriveOptions:
    """One drive of a machine: the image, and how the guest sees it."""

    file: str = ""
    format: str | None = None
    interface: str = ""
    """One of INTERFACES; "" leaves it to the machine."""
    index: int | None = None
    """Place on its controller or bus, None for the next free one."""
    serial: str = ""
    id: str = ""
    """Name in traces."""
    read_only: bool = False
    cache: str = "writeback"
    force_share: bool = False
    backing: str | None = None
    """Instead of the backing file that the image names."""
    no_backing: bool = False
    extras: dict[str, Any] = field(default_factory=dict)
    """Options of the format, such as l2_cache_size."""

    def open(self, **more: Any) -> Disk:
        """Open the image; more are further arguments of open_disk, such as engine, scheduler and policy."""
        return open_disk(
            self.file,
            format=self.format,
            read_only=self.read_only,
            cache=self.cache,
            force_share=self.force_share,
            backing=self.backing,
            no_backing=self.no_backing,
            serial=self.serial,
            **self.extras,
            **more,
        )


def parse_drive(text: str) -> DriveOptions:
    """Parse "key=value,..."; a comma in a value is written twice, a first part without "=" is the file.

    Raises UsageError that names the part that is wrong and what would be right.
    """
    drive = DriveOptions()
    for number, part in enumerate(_parts(text)):
        key, equals, value = part.partition("=")
        if not equals:
            if number:
                raise UsageError(f"drive option {part!r} has no value; it is written {part}=VALUE")
            key, value = "file", part
        if key not in _KEYS:
            raise UsageError(f"unknown drive option {key!r}; known are {', '.join(_KEYS)}")
        attribute, convert = _KEYS[key]
        if attribute in _EXTRAS:
            drive.extras[attribute] = convert(key, value)
        else:
            setattr(drive, attribute, convert(key, value))
    if not drive.file:
        raise UsageError(f"drive {text!r} names no file; it needs file=PATH")
    return drive


def _parts(text: str) -> Iterator[str]:
    # ",," is a comma in a value; NUL cannot occur in a file name, so it can stand for one meanwhile.
    for part in text.replace(",,", "\0").split(","):
        if part:
            yield part.replace("\0", ",")


def _text(key: str, text: str) -> str:
    return text


def _switch(key: str, text: str) -> bool:
    switches = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
    if text not in switches:
        raise UsageError(f"{key}={text}: must be on or off")
    return switches[text]


def _number(key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{key}={text}: must be a number")
    return int(text)


def _cache(key: str, text: str) -> str:
    cache_mode(text)
    return text


def _interface(key: str, text: str) -> str:
    if text not in INTERFACES:
        raise UsageError(f"{key}={text}: unknown interface; known are {', '.join(INTERFACES)}")
    return text


_EXTRAS = ("l2_cache_size", "refcount_cache_size", "offset", "size")

_KEYS: Mapping[str, tuple[str, Callable[[str, str], object]]] = {
    "file": ("file", _text),
    "format": ("format", _text),
    "if": ("interface", _interface),
    "index": ("index", _number),
    "serial": ("serial", _text),
    "id": ("id", _text),
    "readonly": ("read_only", _switch),
    "read-only": ("read_only", _switch),
    "cache": ("cache", _cache),
    "force-share": ("force_share", _switch),
    "backing": ("backing", _text),
    "no-backing": ("no_backing", _switch),
    "l2-cache-size": ("l2_cache_size", parse_size),
    "refcount-cache-size": ("refcount_cache_size", parse_size),
    "offset": ("offset", parse_size),
    "size": ("size", parse_size),
}
