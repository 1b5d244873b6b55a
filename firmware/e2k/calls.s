# How the programs of this folder call routines, and where they keep things in memory.
#
# A routine finds its arguments in r0, r1, ... and leaves its results there. The caller sees them from r16 on:
#
#     { addd 0, value -> r16; disp ctpr1, routine }
#     call ctpr1, wbs=ARGS
#     addd r16, 0 -> result
#
# Each routine begins with setwd wsz=FRAME and then has r0 to r31 for itself, of which r16 up are lost in calls. It has
# predicates of its own, too: those of the caller come back with the return. A call empties all ctprs.

    .equ FRAME, 16                      # registers of a window, in pairs
    .equ ARGS, 8                        # where the callee's window begins, in pairs

# Low RAM, physical addresses. 16 MiB are always there.

    .equ BOOT_BLOCK, 0x0008_0000        # what a kernel is given
    .equ PRD_TABLE, 0x0009_0000         # of a bus master
    .equ RING, 0x0009_4000              # of virtio
    .equ INODE, 0x000a_0000             # the inode that was read last
    .equ INDIRECT, 0x000b_0000          # three blocks of block numbers, BLOCK_ROOM each
    .equ BLOCK, 0x000c_0000             # a block of a directory or an inode table
    .equ SECTOR, 0x000d_0000            # a sector or two
    .equ DISK_STATE, 0x000e_0000        # variables
    .equ EXT2_STATE, 0x000e_0100
    .equ BOOT_STATE, 0x000e_0200
    .equ CONF, 0x0010_0000              # boot.conf
    .equ BUFFER, 0x0020_0000            # what the tests read and write
    .equ LOAD, 0x0040_0000              # a kernel that does not say where it belongs
