# boot: the firmware that starts a kernel from an ATA disk. Finds the boot partition in the MBR, reads /boot.conf from
# its ext2, loads the kernel image (and initrd) that the chosen label names, completes the image's boot block and calls
# its entry. Whatever is not right is said on the console, in one line, and the machine stops.
#
# Not done: extended partitions, symbolic links, a menu. `timeout` is read over: there is nobody to wait for.

    .org 0x1_0000_0000
    .include "start.s"
    .include "ide.s"
    .include "ext2.s"
    .include "conf.s"

    .equ MBR_TABLE, 446
    .equ MBR_MARK, 510
    .equ MBR_SIGNATURE, 0xaa55
    .equ PARTITION_BYTES, 16
    .equ PARTITION_TYPE, 4
    .equ PARTITION_START, 8
    .equ PARTITION_SECTORS, 12
    .equ ACTIVE, 0x80
    .equ TYPE_LINUX, 0x83

    .equ ENTRY, 0x16000                 # of a kernel image: entry 12 of its trap table
    .equ CONF_ROOM, 0x1_0000
    .equ RAM_WITHOUT_BLOCK, 0x100_0000  # at 0, if nobody says how much there is

    .equ board_block, BOOT_STATE        # what the board has told us, or 0
    .equ disk_sectors, BOOT_STATE + 8
    .equ volume_start, BOOT_STATE + 16  # the partition that is being read
    .equ volume_sectors, BOOT_STATE + 24
    .equ volume_index, BOOT_STATE + 32
    .equ partitions, BOOT_STATE + 64    # the table of the MBR

.routine main                           # main(board_block)
    .reg index r8, label r9, image r10, base r11, size r12, end r13, found p0, none p1
    { setwd wsz=FRAME; std r0 -> [board_block]; addd 0, "e2kdisk boot\n" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_find
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_identify
    call ctpr1, wbs=ARGS
    { std r16 -> [disk_sectors]; disp ctpr1, find_boot_partition }
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> index; disp ctpr1, open_partition }
    call ctpr1, wbs=ARGS
    { addd 0, "/boot.conf" -> r16; addd 0, CONF -> r17; addd 0, CONF + CONF_ROOM - 1 -> r18; disp ctpr1, load_file }
    call ctpr1, wbs=ARGS
    { addd r16, CONF -> r16; addd 0, 0 -> r17 }
    { stb r17 -> [r16]; disp ctpr1, conf_open }
    call ctpr1, wbs=ARGS
    disp ctpr1, choose
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> label; addd index, 0 -> r17; disp ctpr1, open_named_partition }
    call ctpr1, wbs=ARGS
    { addd label, 0 -> r16; disp ctpr1, load_kernel }
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> base; addd r17, 0 -> size; addd r18, 0 -> end; addd label, 0 -> r16; addd r18, 0 -> r19 }
    { addd base, 0 -> r17; addd size, 0 -> r18; disp ctpr1, complete_block }
    call ctpr1, wbs=ARGS
    { addd 0, "boot: entry 0x" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd base, ENTRY -> r16; addd 0, 8 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    addd base, ENTRY -> r8
    { movtd r8 -> ctpr1; addd 0, 0 -> r16; addd base, 0 -> r17 }
    call ctpr1, wbs=ARGS
    { addd 0, "boot: the kernel has come back" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS

.routine fail_about                     # fail_about(name, text): "boot: NAME: TEXT"
    { setwd wsz=FRAME; addd 0, "boot: " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r0, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, ": " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r1, 0 -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS

# -- disk and partitions ---------------------------------------------------------------------------------------------

.routine disk_read                      # disk_read(lba, count, buffer)
    .reg lba r0, count r1, buffer r2, end r8, sectors r9, good p0, inside p1
    { setwd wsz=FRAME; addd lba, count -> end; ldd [disk_sectors] -> sectors }
    { cmpbedb end, sectors -> inside; addd 0, "boot: a sector behind the end of the disk" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? ~inside
    { addd lba, 0 -> r16; addd count, 0 -> r17; addd buffer, 0 -> r18; disp ctpr1, ide_read }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r18; disp ctpr1, ide_complain }
    { addd lba, 0 -> r17; addd 0, "boot: read of sector " -> r16 }
    call ctpr1, wbs=ARGS ? ~good
    return ctpr3
    ct ctpr3

.routine volume_read                    # volume_read(sector, count, buffer): of the partition
    .reg sector r0, count r1, buffer r2, end r8, inside p0
    { setwd wsz=FRAME; addd sector, count -> end; ldd [volume_sectors] -> r9; ldd [volume_start] -> r10 }
    { cmpbedb end, r9 -> inside; addd 0, "a block behind its end" -> r16; disp ctpr1, volume_damaged }
    call ctpr1, wbs=ARGS ? ~inside
    { addd sector, r10 -> r16; addd count, 0 -> r17; addd buffer, 0 -> r18; disp ctpr1, disk_read }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine volume_damaged                 # volume_damaged(text): "boot: partition 0: TEXT"
    { setwd wsz=FRAME; addd 0, "boot: partition " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { ldd [volume_index] -> r16; disp ctpr1, print_decimal }
    call ctpr1, wbs=ARGS
    { addd 0, ": " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r0, 0 -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS

.routine find_boot_partition            # find_boot_partition() -> the active one, else the first of type 0x83
    .reg at r8, end r9, flag r10, type r11, first r12, hit p0, linux p1, unset p2, used p3, more p4
    { setwd wsz=FRAME; addd 0, 0 -> r16; addd 0, 1 -> r17; addd 0, SECTOR -> r18; disp ctpr1, disk_read }
    call ctpr1, wbs=ARGS
    ldh [SECTOR + MBR_MARK] -> r8
    { cmpesb r8, MBR_SIGNATURE -> hit; addd 0, "boot: sector 0 has no signature 0xaa55" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? ~hit
    { addd 0, partitions -> r16; addd 0, SECTOR + MBR_TABLE -> r17; addd 0, 64 -> r18; disp ctpr1, copy }
    call ctpr1, wbs=ARGS
    { addd 0, partitions -> at; addd 0, 0 -> end; addd 0, -1 -> first }
.next:
    { ldb [at] -> flag; ldb [at + PARTITION_TYPE] -> type; return ctpr3 }
    { cmpesb flag, ACTIVE -> hit; cmpesb type, TYPE_LINUX -> linux; cmpesb type, 0 -> used
      cmpedb first, -1 -> unset }
    { hit = hit & ~used; linux = linux & unset }
    { addd end, 0 -> r0 ? hit; ct ctpr3 ? hit }
    { addd end, 0 -> first ? linux; addd end, 1 -> end; addd at, PARTITION_BYTES -> at; cmpbedb end, 2 -> more }
    branch .next ? more
    { cmpedb first, -1 -> unset; disp ctpr1, fail }
    addd 0, "boot: no partition is active, and none has type 0x83" -> r16
    call ctpr1, wbs=ARGS ? unset
    return ctpr3
    { addd first, 0 -> r0; ct ctpr3 }

.routine open_partition                 # open_partition(index): go on with this one
    .reg index r0, at r8, start r9, sectors r10, end r11, known p0, used p1, inside p2, good p3
    { setwd wsz=FRAME; std index -> [volume_index]; cmpbedb index, 3 -> known; shld index, 4 -> at }
    { addd 0, "the MBR has partitions 0 to 3" -> r16; disp ctpr1, volume_damaged }
    call ctpr1, wbs=ARGS ? ~known
    addd at, partitions -> at
    { ldw [at + PARTITION_START] -> start; ldw [at + PARTITION_SECTORS] -> sectors; ldb [at + PARTITION_TYPE] -> end }
    { cmpesb end, 0 -> used; addd 0, "not in the MBR" -> r16; disp ctpr1, volume_damaged; addd start, sectors -> end }
    call ctpr1, wbs=ARGS ? used
    ldd [disk_sectors] -> r12
    { cmpbedb end, r12 -> inside; addd 0, "reaches behind the end of the disk" -> r16; disp ctpr1, volume_damaged }
    call ctpr1, wbs=ARGS ? ~inside
    { std,2 start -> [volume_start]; std,5 sectors -> [volume_sectors] }
    disp ctpr1, ext2_open
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; disp ctpr1, volume_damaged }
    call ctpr1, wbs=ARGS ? ~good
    return ctpr3
    ct ctpr3

.routine open_named_partition           # open_named_partition(label, present): the one that the label names
    .reg present r1, value r8, none p0, bad p1
    { setwd wsz=FRAME; addd r0, 0 -> r16; addd 0, "partition" -> r17; disp ctpr1, conf_get }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> none; addd r16, 0 -> value; disp ctpr1, parse_decimal }
    branch .done ? none
    call ctpr1, wbs=ARGS
    { cmpledb r16, -1 -> bad; addd r16, 0 -> r17; cmpedb r16, present -> none }
    { addd value, 0 -> r16; addd 0, "not the number of a partition" -> r17; disp ctpr1, fail_about
      addd r16, 0 -> value }
    call ctpr1, wbs=ARGS ? bad
    branch .done ? none
    { addd value, 0 -> r16; disp ctpr1, open_partition }
    call ctpr1, wbs=ARGS
.done:
    return ctpr3
    ct ctpr3

# -- boot.conf and files ---------------------------------------------------------------------------------------------

.routine choose                         # choose() -> the label that `default` names
    .reg label r8, missing p0
    { setwd wsz=FRAME; addd 0, 0 -> r16; addd 0, "default" -> r17; disp ctpr1, conf_get }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> missing; addd r16, 0 -> label
      addd 0, "boot: /boot.conf does not say default=" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? missing
    { addd label, 0 -> r16; addd 0, "label" -> r17; disp ctpr1, conf_get }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> missing; addd label, 0 -> r16
      addd 0, "/boot.conf has no such label" -> r17; disp ctpr1, fail_about }
    call ctpr1, wbs=ARGS ? missing
    { addd 0, "boot: label " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd label, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    return ctpr3
    { addd label, 0 -> r0; ct ctpr3 }

.routine open_file                      # open_file(path) -> its size; its inode is in INODE
    .reg path r0, mode r8, size r9, high r10, found p0, file p1, small p2
    { setwd wsz=FRAME; addd path, 0 -> r16; disp ctpr1, ext2_lookup }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 1 -> found; addd path, 0 -> r16; addd 0, "no such file" -> r17; disp ctpr1, fail_about }
    call ctpr1, wbs=ARGS ? ~found
    { ldh [INODE + MODE] -> mode; ldw [INODE + SIZE_LOW] -> size }
    { andd mode, MODE_TYPE -> mode; ldw [INODE + SIZE_HIGH] -> high; return ctpr3 }
    { cmpesb mode, MODE_FILE -> file; cmpesb high, 0 -> small; addd 0, "not a regular file" -> r17
      disp ctpr1, fail_about }
    { addd path, 0 -> r16; call ctpr1, wbs=ARGS ? ~file }
    { addd 0, "too large" -> r17; disp ctpr1, fail_about }
    call ctpr1, wbs=ARGS ? ~small
    return ctpr3
    { addd size, 0 -> r0; ct ctpr3 }

.routine load_open_file                 # load_open_file(path, size, buffer, end): INODE's file, to end below
    .reg path r0, size r1, buffer r2, end r3, blocks r8, bytes r9, shift r10, fits p0
    { setwd wsz=FRAME; addd size, 0 -> r16; disp ctpr1, ext2_count; ldd [ext2_shift] -> shift }
    call ctpr1, wbs=ARGS
    { shld r16, shift -> bytes; addd r16, 0 -> blocks }
    addd buffer, bytes -> bytes         # whole blocks are read
    { cmpbedb bytes, end -> fits; addd path, 0 -> r16; disp ctpr1, fail_about }
    addd 0, "does not fit the memory" -> r17
    call ctpr1, wbs=ARGS ? ~fits
    { addd buffer, 0 -> r16; addd 0, 0 -> r17; addd blocks, 0 -> r18; disp ctpr1, ext2_read }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine load_file                      # load_file(path, buffer, end) -> its size
    .reg path r0, size r8
    { setwd wsz=FRAME; addd path, 0 -> r16; disp ctpr1, open_file }
    call ctpr1, wbs=ARGS
    { addd path, 0 -> r16; addd r16, 0 -> r17; addd r16, 0 -> size; disp ctpr1, load_open_file }
    { addd r1, 0 -> r18; addd r2, 0 -> r19 }
    call ctpr1, wbs=ARGS
    return ctpr3
    { addd size, 0 -> r0; ct ctpr3 }

.routine report                         # report(what, path, size, address): "boot: WHAT PATH, N bytes at 0xADDRESS"
    { setwd wsz=FRAME; addd 0, "boot: " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r0, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r1, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, ", " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r2, 0 -> r16; disp ctpr1, print_decimal }
    call ctpr1, wbs=ARGS
    { addd 0, " bytes at 0x" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r3, 0 -> r16; addd 0, 8 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

# -- the kernel ------------------------------------------------------------------------------------------------------

.routine ram_end                        # ram_end(address) -> end of the bank of RAM that holds it, 0 if none does
    .reg address r0, block r8, at r9, left r10, base r11, size r12, end r13, inside p0, last p1, none p2
    { setwd wsz=FRAME; ldd [board_block] -> block; addd 0, RAM_WITHOUT_BLOCK -> end; return ctpr3 }
    { cmpedb block, 0 -> none; cmpbdb address, end -> inside; addd block, BLOCK_BANKS -> at }
    branch .banks ? ~none
    { addd end, 0 -> r0 ? inside; addd 0, 0 -> r0 ? ~inside; ct ctpr3 }
.banks:
    ldb [block + BLOCK_BANK_COUNT] -> left
.next:
    { cmpedb left, 0 -> last; ldd [at] -> base; ldd [at + 8] -> size; addd at, 16 -> at; subd left, 1 -> left }
    { subd address, base -> end; addd 0, 0 -> r0 ? last; ct ctpr3 ? last }
    cmpbdb end, size -> inside          # from below the bank, the distance wraps around to a huge one
    { addd base, size -> r0 ? inside; ct ctpr3 ? inside }
    branch .next

.routine load_kernel                    # load_kernel(label) -> base, size, end of the RAM around it
    .reg label r0, path r8, size r9, block r10, base r11, end r12, none p0, short p1, good p2, marked p3, low p4
    { setwd wsz=FRAME; addd label, 0 -> r16; addd 0, "image" -> r17; disp ctpr1, conf_get }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> none; addd r16, 0 -> path; addd label, 0 -> r16; addd 0, "/boot.conf names no image" -> r17 }
    disp ctpr1, fail_about
    call ctpr1, wbs=ARGS ? none
    { addd path, 0 -> r16; disp ctpr1, open_file }
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> size; cmpbedb r16, ENTRY -> short; addd path, 0 -> r16; disp ctpr1, fail_about }
    addd 0, "too short for a kernel image" -> r17
    call ctpr1, wbs=ARGS ? short
    { addd 0, BLOCK_SIZE -> r16; disp ctpr1, ext2_count }
    call ctpr1, wbs=ARGS
    { addd 0, BOOT_BLOCK -> r16; addd 0, 0 -> r17; addd r16, 0 -> r18; disp ctpr1, ext2_read }
    call ctpr1, wbs=ARGS
    addd 0, BOOT_BLOCK -> block
    { ldh [block] -> r14; ldh [block + BLOCK_END_MARK] -> r15; ldd [block + BLOCK_KERNEL_BASE] -> base }
    { cmpesb r14, BLOCK_SIGNATURE -> good; cmpesb r15, MBR_SIGNATURE -> marked; cmpedb base, 0 -> none }
    { good = good & marked; addd 0, LOAD -> base ? none; addd path, 0 -> r16 }
    { addd 0, "not a kernel image: its boot block is not signed" -> r17; disp ctpr1, fail_about }
    call ctpr1, wbs=ARGS ? ~good
    { cmpbdb base, LOAD -> low; andd base, 0xfff -> r14; addd 0, "wants a place that is not free" -> r17 }
    { addd path, 0 -> r16; disp ctpr1, fail_about; cmpedb r14, 0 -> good }
    call ctpr1, wbs=ARGS ? low
    disp ctpr1, fail_about
    call ctpr1, wbs=ARGS ? ~good
    { addd base, 0 -> r16; disp ctpr1, ram_end }
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> end; addd path, 0 -> r16; addd size, 0 -> r17; addd base, 0 -> r18; addd r16, 0 -> r19 }
    disp ctpr1, load_open_file
    call ctpr1, wbs=ARGS
    { addd 0, "kernel " -> r16; addd path, 0 -> r17; addd size, 0 -> r18; addd base, 0 -> r19; disp ctpr1, report }
    call ctpr1, wbs=ARGS
    return ctpr3
    { addd base, 0 -> r0; addd size, 0 -> r1; addd end, 0 -> r2; ct ctpr3 }

# The kernel finds the boot block in the first page of its own image.

.routine complete_block                 # complete_block(label, block, size, end): all that the image could not know
    .reg label r0, block r1, size r2, end r3, board r8, path r9, initrd r10, value r11, none p0
    { setwd wsz=FRAME; ldd [board_block] -> board }
    { cmpedb board, 0 -> none; addd block, 0 -> r16; addd board, 0 -> r17; disp ctpr1, take_over }
    call ctpr1, wbs=ARGS ? ~none
    { addd block, 0 -> r16; disp ctpr1, assume }
    call ctpr1, wbs=ARGS ? none
    { ldd [serial] -> value; addd label, 0 -> r16; addd 0, "cmdline" -> r17; disp ctpr1, conf_get }
    { std,2 value -> [block + BLOCK_SERIAL_BASE]; std,5 size -> [block + BLOCK_KERNEL_SIZE] }
    std block -> [block + BLOCK_KERNEL_BASE]
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> none; addd block, 0 -> r16; addd r16, 0 -> r17; disp ctpr1, put_cmdline }
    call ctpr1, wbs=ARGS ? ~none
    { addd label, 0 -> r16; addd 0, "initrd" -> r17; disp ctpr1, conf_get }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> none; addd r16, 0 -> path; addd block, size -> initrd }
    branch .done ? none
    addd initrd, 0x1fff -> initrd       # a page of its own, and one between that whole blocks may have run into
    { andd initrd, ~0xfff -> initrd; addd path, 0 -> r16; disp ctpr1, load_file; addd end, 0 -> r18 }
    { call ctpr1, wbs=ARGS; addd initrd, 0 -> r17 }
    { std,2 initrd -> [block + BLOCK_RAMDISK_BASE]; std,5 r16 -> [block + BLOCK_RAMDISK_SIZE] }
    { addd 0, "initrd " -> r16; addd path, 0 -> r17; addd r16, 0 -> r18; addd initrd, 0 -> r19; disp ctpr1, report }
    call ctpr1, wbs=ARGS
.done:
    return ctpr3
    ct ctpr3

.routine take_over                      # take_over(block, board): RAM, console, machine as the board tells them
    .reg block r0, board r1
    { setwd wsz=FRAME; addd block, BLOCK_BANK_COUNT -> r16; addd board, BLOCK_BANK_COUNT -> r17; addd 0, 1 -> r18 }
    disp ctpr1, copy
    call ctpr1, wbs=ARGS
    { addd block, BLOCK_MACHINE -> r16; addd board, BLOCK_MACHINE -> r17
      addd 0, BLOCK_CMDLINE - BLOCK_MACHINE -> r18 }
    disp ctpr1, copy
    call ctpr1, wbs=ARGS
    { addd block, BLOCK_BANKS -> r16; addd board, BLOCK_BANKS -> r17; addd 0, BLOCK_BUSY_END - BLOCK_BANKS -> r18 }
    disp ctpr1, copy
    call ctpr1, wbs=ARGS
    { addd block, BLOCK_BIOS -> r16; addd board, BLOCK_BIOS -> r17; addd 0, BLOCK_LONG_CMDLINE - BLOCK_BIOS -> r18 }
    disp ctpr1, copy
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine assume                         # assume(block): one bank of RAM at 0, one node
    .reg block r0, zero r8, one r9, size r10
    { setwd wsz=FRAME; addd 0, 0 -> zero; addd 0, 1 -> one; addd 0, RAM_WITHOUT_BLOCK -> size; return ctpr3 }
    { stb,2 one -> [block + BLOCK_BANK_COUNT]; sth,5 one -> [block + BLOCK_NODE_COUNT] }
    { std,2 zero -> [block + BLOCK_BANKS]; std,5 size -> [block + BLOCK_BANKS + 8]; ct ctpr3 }

.routine put_cmdline                    # put_cmdline(block, text): into its place, or into the one for long ones
    .reg block r0, text r1, bytes r8, short p0, possible p1
    { setwd wsz=FRAME; addd text, 0 -> r16; disp ctpr1, length }
    call ctpr1, wbs=ARGS
    { cmpbdb r16, CMDLINE_SIZE -> short; cmpbdb r16, LONG_CMDLINE_SIZE -> possible; addd r16, 1 -> bytes }
    { addd 0, "boot: the command line has more than 511 characters" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? ~possible
    { addd block, BLOCK_CMDLINE -> r16; addd 0, long_cmdline_mark -> r17; addd 0, 22 -> r18; disp ctpr1, copy }
    call ctpr1, wbs=ARGS ? ~short
    { addd block, BLOCK_CMDLINE -> r16 ? short; addd block, BLOCK_LONG_CMDLINE -> r16 ? ~short }
    { addd text, 0 -> r17; addd bytes, 0 -> r18; disp ctpr1, copy }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

long_cmdline_mark: .asciz "KERNEL_ARGS_STRING_EX"
