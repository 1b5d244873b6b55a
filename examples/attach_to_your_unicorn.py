"""A qcow2 disk on your own unicorn.Uc: the guest below reads sector 0 through virtio-mmio, and we print it."""

import struct
import sys
import tempfile

from unicorn import UC_ARCH_ARM64, UC_MODE_ARM, Uc, arm64_const

from e2kdisk import VirtioBlk, VirtioMmio, attach, create, open_disk

RAM, BASE, CODE, TABLE, DESC, AVAIL, USED, HEADER, DATA, STATUS = 0, 0x0A000000, *range(0x1000, 0x9000, 0x1000)

# Stores each (register, value) pair of the table at x0 to the controller at x3, until the register is 0.
GUEST = struct.pack("<4I", 0x28C10801, 0x34000061, 0xB8214862, 0x17FFFFFD)  # ldp w1,w2,[x0],8; cbz w1,+12; str w2; b
STORES = [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11),  # acknowledge, driver, VERSION_1, features OK
          (0x30, 0), (0x38, 4), (0x80, DESC), (0x90, AVAIL), (0xA0, USED), (0x44, 1),  # queue 0: size, rings, ready
          (0x70, 15), (0x50, 0), (0, 0)]  # driver OK, notify  # fmt: skip
RING = [(HEADER, 16, 1, 1), (DATA, 512, 3, 2), (STATUS, 1, 2, 0)]  # read 16 bytes, write 512, write 1

with tempfile.TemporaryDirectory() as directory:
    image = f"{directory}/disk.qcow2"
    create(image, 1 << 20)
    with open_disk(image) as disk:
        disk.pwrite(0, b"Hello from sector 0 of a qcow2 disk.")
        uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
        uc.mem_map(RAM, 0x10000)
        uc.mem_write(CODE, GUEST)
        uc.mem_write(TABLE, b"".join(struct.pack("<2I", *pair) for pair in STORES))
        uc.mem_write(DESC, b"".join(struct.pack("<QIHH", *descriptor) for descriptor in RING))
        uc.mem_write(AVAIL, struct.pack("<3H", 0, 1, 0))  # one request: the chain that starts at descriptor 0
        uc.mem_write(HEADER, struct.pack("<IIQ", 0, 0, 0))  # read, sector 0
        with attach(uc, VirtioMmio(VirtioBlk(disk)), base=BASE, irq=lambda level: print("interrupt line:", level)):
            uc.reg_write(arm64_const.UC_ARM64_REG_X0, TABLE)
            uc.reg_write(arm64_const.UC_ARM64_REG_X3, BASE)
            uc.emu_start(CODE, CODE + len(GUEST))
        sys.stdout.write(uc.mem_read(DATA, 36).decode() + "\n")
