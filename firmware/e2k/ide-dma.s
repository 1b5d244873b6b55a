# ide-dma: an ATA disk by bus master DMA. Takes the controller into native mode, as the driver of Linux/e2k does, where
# it lets itself be taken, and runs the exercise through PRD tables. SFF-8038i.

    .org 0x1_0000_0000
    .include "exercise.s"
    .include "ide.s"
    .include "identity.s"

    .equ PROG_IF, 0x09
    .equ PROG_IF_NATIVE, 0x05           # both channels
    .equ MASTER_COMMAND, 0
    .equ MASTER_STATUS, 2
    .equ MASTER_TABLE, 4
    .equ MASTER_START, 1
    .equ MASTER_TO_MEMORY, 8
    .equ MASTER_ACTIVE_OR_ERROR, 3
    .equ MASTER_CLEAR, 6                # interrupt and error, by writing ones
    .equ PRD_LAST, 1 << 31
    .equ PAGE, 0x1000                   # an entry must not cross 64 KiB; ours do not cross a page

program: .asciz "ide-dma"

.routine disk_open
    .reg function r8, class r9, native p0
    { setwd wsz=FRAME; disp ctpr1, ide_find }
    call ctpr1, wbs=ARGS
    { ldd [ide_function] -> function; addd 0, PROG_IF_NATIVE -> class }
    { stb class -> [function + PROG_IF]; addd function, 0 -> r16; disp ctpr1, pci_assign }
    call ctpr1, wbs=ARGS                # its BARs may be other ones now
    { addd function, 0 -> r16; disp ctpr1, ide_ports }
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_identify
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> r10; addd 0, "model " -> r16; addd 0, 27 -> r17; addd 0, 20 -> r18; disp ctpr1, print_identity }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    ldw [function + CLASS] -> class
    { andd class, NATIVE -> class; addd 0, "ports native\n" -> r16; disp ctpr1, print }
    cmpedb class, NATIVE -> native
    addd 0, "ports legacy\n" -> r16 ? ~native
    call ctpr1, wbs=ARGS
    { addd r10, 0 -> r0; return ctpr3 }
    ct ctpr3

.routine describe                       # describe(buffer, bytes): the PRD table, an entry for each page
    .reg address r0, left r1, at r8, size r9, last p0, fits p1
    { setwd wsz=FRAME; addd 0, PRD_TABLE -> at; return ctpr3 }
.next:
    andd address, PAGE - 1 -> size
    { subd size, PAGE -> size; stw address -> [at] }
    subd 0, size -> size                # up to the next page
    cmpbdb size, left -> fits
    addd left, 0 -> size ? ~fits
    { subd left, size -> left; addd address, size -> address }
    cmpedb left, 0 -> last
    ord size, PRD_LAST -> size ? last
    { stw size -> [at + 4]; addd at, 8 -> at; branch .next ? ~last }
    ct ctpr3

.routine dma                            # dma(lba, count, buffer, command, direction) -> 0 or the status
    .reg lba r0, count r1, buffer r2, command r3, direction r4, master r8, control r9, table r10, status r11, bad r12
    .reg idle p0, good p1
    { setwd wsz=FRAME; addd buffer, 0 -> r16; shld count, 9 -> r17; disp ctpr1, describe }
    call ctpr1, wbs=ARGS
    { ldd [ide_master] -> master; ldd [ide_control] -> control }
    { addd 0, PRD_TABLE -> table; addd 0, MASTER_CLEAR -> bad }
    { stb,io direction -> [master + MASTER_COMMAND]; ord direction, MASTER_START -> direction }
    stb,io bad -> [master + MASTER_STATUS]
    stw,io table -> [master + MASTER_TABLE]
    { addd lba, 0 -> r16; addd count, 0 -> r17; addd command, 0 -> r18; disp ctpr1, ide_start }
    call ctpr1, wbs=ARGS
    stb,io direction -> [master + MASTER_COMMAND]
.poll:
    ldb,io [control] -> status
    cmpandesb status, BSY | DRQ -> idle
    branch .poll ? ~idle
    { ldb,io [master + MASTER_STATUS] -> bad; xord direction, MASTER_START -> direction; disp ctpr1, ide_wait }
    stb,io direction -> [master + MASTER_COMMAND]
    call ctpr1, wbs=ARGS
    { andd r16, BAD -> r17; andd bad, MASTER_ACTIVE_OR_ERROR -> bad }
    ord r17, bad -> bad
    { cmpedb bad, 0 -> good; addd r16, 0 -> r0; return ctpr3 }
    { addd 0, 0 -> r0 ? good; ct ctpr3 }

.routine disk_read
    .reg lba r0, good p0
    { setwd wsz=FRAME; addd lba, 0 -> r16; addd r1, 0 -> r17; addd r2, 0 -> r18; disp ctpr1, dma }
    { addd 0, READ_DMA -> r19; addd 0, MASTER_TO_MEMORY -> r20 }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r18; disp ctpr1, ide_complain }
    { addd lba, 0 -> r17; addd 0, "\nFAIL: read of sector " -> r16 }
    call ctpr1, wbs=ARGS ? ~good
    return ctpr3
    ct ctpr3

.routine disk_write
    .reg lba r0, good p0
    { setwd wsz=FRAME; addd lba, 0 -> r16; addd r1, 0 -> r17; addd r2, 0 -> r18; disp ctpr1, dma }
    { addd 0, WRITE_DMA -> r19; addd 0, 0 -> r20 }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r18; disp ctpr1, ide_complain }
    { addd lba, 0 -> r17; addd 0, "\nFAIL: write of sector " -> r16 }
    call ctpr1, wbs=ARGS ? ~good
    return ctpr3
    ct ctpr3

.routine disk_flush
    .reg good p0
    { setwd wsz=FRAME; disp ctpr1, ide_flush }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r18; disp ctpr1, ide_complain }
    { addd 0, 0 -> r17; addd 0, "\nFAIL: flush of disk " -> r16 }
    call ctpr1, wbs=ARGS ? ~good
    return ctpr3
    ct ctpr3
