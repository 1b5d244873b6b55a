"""The configuration headers as tables: type 0 of a function, type 1 of a bridge (PCI 3.0 6.1, P2P bridge 1.2 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2kdisk.devices.registers import RW, R, Register, RegisterMap

if TYPE_CHECKING:
    from e2kdisk.devices.pci.function import PciFunction

VENDOR_ID = 0x00
COMMAND = 0x04
STATUS = 0x06
PROG_IF = 0x09
HEADER_TYPE = 0x0E
BAR0 = 0x10
CAPABILITY_POINTER = 0x34
INTERRUPT_LINE = 0x3C

# Command (PCI 3.0 6.2.2)
IO_SPACE = 1 << 0
MEMORY_SPACE = 1 << 1
BUS_MASTER = 1 << 2
SERR_ENABLE = 1 << 8
INTX_DISABLE = 1 << 10
COMMAND_BITS = IO_SPACE | MEMORY_SPACE | BUS_MASTER | SERR_ENABLE | INTX_DISABLE
"""What can be set; the rest concerns a bus with wires."""

# Status (PCI 3.0 6.2.3)
INTERRUPT_STATUS = 1 << 3
CAPABILITIES_LIST = 1 << 4
STATUS_ERRORS = 0xF900
"""Parity and abort bits, each cleared by writing it as one."""

MULTIFUNCTION = 0x80
"""Of the header type: the device has more functions (PCI 3.0 6.2.1)."""


def _reg(offset: int, name: str, width: int, meaning: str, section: str, **more: Any) -> Register[PciFunction]:
    writable = more.get("stored", 0) | more.get("cleared", 0) or "write" in more
    return Register(
        offset=offset, name=name, width=width, access=RW if writable else R, meaning=meaning, section=section, **more
    )


def _bar(number: int, section: str) -> Register[PciFunction]:
    # Which bits are stored is the function's: it says how large each region is.
    return _reg(
        BAR0 + 4 * number,
        f"BAR{number}",
        4,
        "where a region of registers answers",
        section,
        write=lambda function, value: function.decode_changed(),
    )


def _beginning(header_type: int) -> list[Register[PciFunction]]:
    """The first 16 bytes, the same in both headers."""
    of = "PCI 3.0 6.2."
    return [
        _reg(0x00, "VendorID", 2, "who made the function", of + "1", read=lambda f: f.identity.vendor),
        _reg(0x02, "DeviceID", 2, "which function of that vendor", of + "1", read=lambda f: f.identity.device),
        _reg(
            COMMAND,
            "Command",
            2,
            "what the function may do on the bus",
            of + "2",
            stored=COMMAND_BITS,
            write=lambda function, value: function.command_changed(),
        ),
        _reg(STATUS, "Status", 2, "capability list, interrupt, errors", of + "3", cleared=STATUS_ERRORS),
        _reg(0x08, "RevisionID", 1, "revision", of + "1", read=lambda f: f.identity.revision),
        _reg(PROG_IF, "ProgIF", 1, "programming interface of the class", of + "1", read=lambda f: f.identity.prog_if),
        _reg(0x0A, "ClassCode", 2, "class and sub-class", of + "1", read=lambda f: f.identity.class_code),
        _reg(0x0C, "CacheLineSize", 1, "in dwords; kept, without effect", of + "4", stored=0xFF),
        _reg(0x0D, "LatencyTimer", 1, "no latency to limit", of + "4"),
        _reg(HEADER_TYPE, "HeaderType", 1, "layout of this header, several functions", of + "1", reset=header_type),
        _reg(0x0F, "BIST", 1, "no self-test", of + "4"),
    ]


def _interrupt_registers() -> list[Register[PciFunction]]:
    of = "PCI 3.0 6.2.4"
    return [
        _reg(INTERRUPT_LINE, "InterruptLine", 1, "a note of the firmware's for drivers", of, stored=0xFF),
        _reg(0x3D, "InterruptPin", 1, "1 to 4 for INTA to INTD, 0 for none", of, read=lambda f: f.interrupt_pin),
    ]


FUNCTION_HEADER: RegisterMap[PciFunction] = RegisterMap(
    "PCI header type 0",
    *_beginning(0),
    *(_bar(number, "PCI 3.0 6.2.5.1") for number in range(6)),
    _reg(0x28, "CardbusCIS", 4, "no CardBus", "PCI 3.0 6.2.4"),
    _reg(
        0x2C, "SubsystemVendorID", 2, "vendor of the card", "PCI 3.0 6.2.4", read=lambda f: f.identity.subsystem_vendor
    ),
    _reg(0x2E, "SubsystemID", 2, "which card of that vendor", "PCI 3.0 6.2.4", read=lambda f: f.identity.subsystem),
    _reg(0x30, "ExpansionROM", 4, "no ROM", "PCI 3.0 6.2.5.2"),
    _reg(CAPABILITY_POINTER, "CapabilitiesPointer", 1, "the first capability", "PCI 3.0 6.7"),
    *_interrupt_registers(),
    _reg(0x3E, "MinGnt", 1, "no burst needs time", "PCI 3.0 6.2.4"),
    _reg(0x3F, "MaxLat", 1, "no need for the bus", "PCI 3.0 6.2.4"),
)

_BRIDGE = "P2P bridge 1.2 3.2.5"

BRIDGE_HEADER: RegisterMap[PciFunction] = RegisterMap(
    "PCI header type 1",
    *_beginning(1),
    *(_bar(number, _BRIDGE + ".1") for number in range(2)),
    _reg(0x18, "PrimaryBus", 1, "the bus above", _BRIDGE + ".2", stored=0xFF),
    _reg(0x19, "SecondaryBus", 1, "the bus below", _BRIDGE + ".3", stored=0xFF),
    _reg(0x1A, "SubordinateBus", 1, "the highest bus below", _BRIDGE + ".4", stored=0xFF),
    _reg(0x1B, "SecondaryLatency", 1, "no latency to limit", _BRIDGE + ".5"),
    _reg(0x1C, "IOBase", 1, "I/O passed on, first 4 KiB", _BRIDGE + ".6", stored=0xF0, reset=1),
    _reg(0x1D, "IOLimit", 1, "I/O passed on, last 4 KiB", _BRIDGE + ".6", stored=0xF0, reset=1),
    _reg(0x1E, "SecondaryStatus", 2, "errors on the bus below", _BRIDGE + ".7", cleared=STATUS_ERRORS),
    _reg(0x20, "MemoryBase", 2, "memory passed on, first MiB", _BRIDGE + ".8", stored=0xFFF0),
    _reg(0x22, "MemoryLimit", 2, "memory passed on, last MiB", _BRIDGE + ".8", stored=0xFFF0),
    _reg(0x24, "PrefetchBase", 2, "prefetchable, first MiB", _BRIDGE + ".9", stored=0xFFF0, reset=1),
    _reg(0x26, "PrefetchLimit", 2, "prefetchable, last MiB", _BRIDGE + ".9", stored=0xFFF0, reset=1),
    _reg(0x28, "PrefetchBaseUpper", 4, "its upper half", _BRIDGE + ".10", stored=0xFFFFFFFF),
    _reg(0x2C, "PrefetchLimitUpper", 4, "its upper half", _BRIDGE + ".10", stored=0xFFFFFFFF),
    _reg(0x30, "IOBaseUpper", 2, "its upper half", _BRIDGE + ".11", stored=0xFFFF),
    _reg(0x32, "IOLimitUpper", 2, "its upper half", _BRIDGE + ".11", stored=0xFFFF),
    _reg(CAPABILITY_POINTER, "CapabilitiesPointer", 1, "the first capability", "PCI 3.0 6.7"),
    _reg(0x38, "ExpansionROM", 4, "no ROM", _BRIDGE + ".14"),
    *_interrupt_registers(),
    _reg(0x3E, "BridgeControl", 2, "kept, without effect", _BRIDGE + ".18", stored=0x0FFF),
)
