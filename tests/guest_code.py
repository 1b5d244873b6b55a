"""A tiny arm64 guest for virtio-mmio: it stores what a table says into a controller's registers."""

import struct

IN, OUT, FLUSH = 0, 1, 4

# x3 = controller, x0 = table of (register, value) up to register 0, x4 = a function that is called before and after;
# what the function gave is in x20 and x21.
CALL_STORE_CALL = struct.pack(
    "<11I",
    0xD63F0080,  # blr x4
    0xAA0103F4,  # mov x20, x1
    0x28C10801,  # loop: ldp w1, w2, [x0], #8
    0x34000061,  # cbz w1, done
    0xB8214862,  # str w2, [x3, w1, uxtw]
    0x17FFFFFD,  # b loop
    0xD63F0080,  # done: blr x4
    0xAA0103F5,  # mov x21, x1
    0x52800100,  # mov w0, #8: PSCI SYSTEM_OFF
    0x72B08000,  # movk w0, #0x8400, lsl #16
    0xD4000002,  # hvc #0
)
STORE = CALL_STORE_CALL[8:24]
"""Only the loop; it ends behind its last instruction."""


def returning(value: int) -> bytes:
    """A function that returns a small number in x1."""
    return struct.pack("<2I", 0xD2800001 | value << 5, 0xD65F03C0)  # mov x1, #value; ret


class Layout:
    """Where a test keeps its rings, from a base address in RAM, and one request in them."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.table, self.desc, self.avail, self.used, self.header, self.status, self.data = range(
            base, base + 7 * 0x1000, 0x1000
        )

    def stores(self) -> bytes:
        """The table: bring up queue 0 of a modern device, notify once."""
        stores = [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x30, 0), (0x38, 4)]
        for register, address in ((0x80, self.desc), (0x90, self.avail), (0xA0, self.used)):
            stores += [(register, address & 0xFFFF_FFFF), (register + 4, address >> 32)]
        stores += [(0x44, 1), (0x70, 15), (0x50, 0), (0, 0)]
        return b"".join(struct.pack("<2I", *store) for store in stores)

    def memory(self, kind: int, sector: int, data: int, length: int) -> dict[int, bytes]:
        """What must be in RAM for one request with its data at an address."""
        write = 2 if kind == IN else 0
        ring = [(self.header, 16, 1, 1), (data, length, 1 | write, 2), (self.status, 1, 2, 0)]
        return {
            self.table: self.stores(),
            self.desc: b"".join(struct.pack("<QIHH", *descriptor) for descriptor in ring),
            self.avail: struct.pack("<3H", 0, 1, 0),
            self.used: bytes(64),
            self.header: struct.pack("<IIQ", kind, 0, sector),
            self.status: b"\xff",
        }
