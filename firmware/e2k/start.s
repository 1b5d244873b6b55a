# Where a program of this folder is entered, as f(n, boot block): by the board as firmware, or by a boot loader.
# The program places it with .org and has a routine `main`, which is called as main(boot block or 0).
# When main returns, the machine is switched off.

    .include "calls.s"

    .equ BLOCK_SIGNATURE, 0x8086        # boot info block, Linux/e2k arch/l/include/asm/bootinfo.h
    .equ BLOCK_BANK_COUNT, 0x007
    .equ BLOCK_KERNEL_BASE, 0x008
    .equ BLOCK_KERNEL_SIZE, 0x010
    .equ BLOCK_RAMDISK_BASE, 0x018
    .equ BLOCK_RAMDISK_SIZE, 0x020
    .equ BLOCK_MACHINE, 0x028           # processors, nodes, console, serial number, MAC: up to the command line
    .equ BLOCK_NODE_COUNT, 0x02e
    .equ BLOCK_SERIAL_BASE, 0x038
    .equ BLOCK_CMDLINE, 0x058
    .equ BLOCK_BANKS, 0x0d8             # of all nodes, then busy areas
    .equ BLOCK_BUSY_END, 0x318
    .equ BLOCK_BIOS, 0x538              # signature, version, kinds of board, chipset, processor
    .equ BLOCK_LONG_CMDLINE, 0x5c3
    .equ BLOCK_END_MARK, 0xffe          # 0xaa55
    .equ BLOCK_SIZE, 0x1000
    .equ CMDLINE_SIZE, 128
    .equ LONG_CMDLINE_SIZE, 512

.routine entry                          # entry(n, block)
    .reg block r1, serial_base r8, signature r9, none p0, good p1
    { setwd wsz=FRAME; cmpedb block, 0 -> none; addd 0, 0 -> signature; addd 0, 0 -> serial_base }
    ldh [block] -> signature ? ~none    # other machines may hand over anything
    cmpesb signature, BLOCK_SIGNATURE -> good
    { ldd [block + BLOCK_SERIAL_BASE] -> serial_base ? good; addd 0, 0 -> block ? ~good }
    { addd serial_base, 0 -> r16; disp ctpr1, console_open }
    call ctpr1, wbs=ARGS
    { addd block, 0 -> r16; disp ctpr1, main }
    call ctpr1, wbs=ARGS
    branch power_off                    # what fails does not come here

    .include "pci.s"
