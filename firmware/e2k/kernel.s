# kernel: what `boot` starts in our tests, in the place of Linux. Says what its boot block holds, reads one more sector
# of the disk by itself and switches off. This is the code at the entry of the image; the rest comes
# from boot_block.kernel_image().

    .org 0x0041_6000                    # LOAD + 0x16000
    .include "start.s"
    .include "memory.s"
    .include "ide.s"

    .equ EXTRA_SECTOR, 1                # between the MBR and the first partition

.routine main                           # main(block)
    .reg block r0, text r8, left r9, at r10, good p0, none p1
    { setwd wsz=FRAME; cmpedb block, 0 -> none; addd 0, "kernel: no boot block" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? none
    ldh [block + BLOCK_END_MARK] -> at
    { cmpesb at, 0xaa55 -> good; addd 0, "kernel: the boot block has no end mark" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? ~good
    { addd 0, "kernel: command line: " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd block, BLOCK_CMDLINE -> r16; addd 0, "KERNEL_ARGS_STRING_EX" -> r17; disp ctpr1, same }
    { call ctpr1, wbs=ARGS; addd block, BLOCK_CMDLINE -> text }
    { cmpedb r16, 1 -> good; disp ctpr1, print }
    { addd block, BLOCK_LONG_CMDLINE -> text ? good }
    addd text, 0 -> r16
    call ctpr1, wbs=ARGS
    { ldb [block + BLOCK_BANK_COUNT] -> left; addd block, BLOCK_BANKS -> at }
.bank:
    { cmpedb left, 0 -> none; addd 0, "\nkernel: RAM" -> r16; disp ctpr1, print_range }
    branch .banks_done ? none
    { ldd [at] -> r17; ldd [at + 8] -> r18; addd at, 16 -> at; subd left, 1 -> left }
    call ctpr1, wbs=ARGS
    branch .bank
.banks_done:
    { addd 0, "\nkernel: image" -> r16; ldd [block + BLOCK_KERNEL_BASE] -> r17
      ldd [block + BLOCK_KERNEL_SIZE] -> r18 }
    disp ctpr1, print_range
    call ctpr1, wbs=ARGS
    { addd 0, "\nkernel: console" -> r16; ldd [block + BLOCK_SERIAL_BASE] -> r17; addd 0, 4 -> r18
      disp ctpr1, print_range }
    call ctpr1, wbs=ARGS
    ldd [block + BLOCK_RAMDISK_SIZE] -> left
    { cmpedb left, 0 -> none; addd 0, "\nkernel: initrd" -> r16; addd left, 0 -> r18; disp ctpr1, print_range }
    branch .no_initrd ? none
    ldd [block + BLOCK_RAMDISK_BASE] -> r17
    call ctpr1, wbs=ARGS
    { ldd [block + BLOCK_RAMDISK_BASE] -> r16; andd left, ~7 -> r17; addd 0, 0 -> r18; disp ctpr1, print_checksum }
    call ctpr1, wbs=ARGS
.no_initrd:
    { addd 0, "\nkernel: sector 1" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_find
    call ctpr1, wbs=ARGS
    { addd 0, EXTRA_SECTOR -> r16; addd 0, 1 -> r17; addd 0, SECTOR -> r18; disp ctpr1, ide_read }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r18; disp ctpr1, ide_complain }
    { addd 0, "\nkernel: read of sector " -> r16; addd 0, EXTRA_SECTOR -> r17 }
    call ctpr1, wbs=ARGS ? ~good
    { addd 0, SECTOR -> r16; addd 0, 512 -> r17; addd 0, 0 -> r18; disp ctpr1, print_checksum }
    call ctpr1, wbs=ARGS
    { addd 0, "\nkernel: done\n" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine print_range                    # print_range(text, base, size): "TEXT 0xBASE+0xSIZE"
    { setwd wsz=FRAME; addd r0, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, " 0x" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r1, 0 -> r16; addd 0, 9 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    { addd 0, "+0x" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r2, 0 -> r16; addd 0, 8 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine print_checksum                 # print_checksum(bytes, count)
    { setwd wsz=FRAME; addd r0, 0 -> r16; addd r1, 0 -> r17; addd 0, 0 -> r18; disp ctpr1, checksum }
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> r8; addd 0, " checksum " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r8, 0 -> r16; addd 0, 16 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3
