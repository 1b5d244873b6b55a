"""QEMU's qtest protocol over our boards: a test program in the place of the CPU.

    test program -- qtest line --> protocol --> address space --> RAM, registers of the board
                 <-- IRQ raise --- wires    <-- controller
                 -- QMP ---------> qmp      --> emulator (resize, reset, stop, quit)

`program.main` is qemu-system-ARCH as far as such tests need it; nothing runs on the CPU, time moves by clock_step only.
"""
