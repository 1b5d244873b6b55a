# One ATA disk, the first device of the first channel of the first PCI IDE controller; polled. ATA8-ACS, LBA of 28 bits.

    .include "pci.s"

    .equ CLASS_IDE, 0x0101_0000
    .equ NATIVE, 0x100                  # in CLASS: the first channel's ports are those of BAR 0 and 1
    .equ LEGACY_COMMAND, 0x1f0
    .equ LEGACY_CONTROL, 0x3f6

    .equ ERROR, 1                       # in the command block
    .equ COUNT, 2
    .equ LBA_LOW, 3
    .equ LBA_MID, 4
    .equ LBA_HIGH, 5
    .equ DEVICE, 6
    .equ STATUS, 7                      # read; a write is a command

    .equ BSY, 0x80
    .equ DRQ, 0x08
    .equ BAD, 0x21                      # DF, ERR
    .equ DEVICE_LBA, 0xe0               # device 0
    .equ NO_INTERRUPTS, 0x02            # nIEN, in the control block
    .equ POLLS, 1 << 22                 # before a disk counts as dead

    .equ IDENTIFY_DEVICE, 0xec
    .equ READ_SECTORS, 0x20
    .equ WRITE_SECTORS, 0x30
    .equ READ_DMA, 0xc8
    .equ WRITE_DMA, 0xca
    .equ FLUSH_CACHE, 0xe7

    .equ BURST, 8                       # sectors in a PIO command, as the loader of Linux/e2k takes them

    .equ ide_command, DISK_STATE         # ports, as addresses in the I/O space
    .equ ide_control, DISK_STATE + 8
    .equ ide_master, DISK_STATE + 16
    .equ ide_function, DISK_STATE + 24

.routine ide_find                       # ide_find(): the controller, its ports and no interrupts; fails without one
    .reg function r8, absent p0
    { setwd wsz=FRAME; addd 0, CLASS -> r16; addd 0, CLASS_IDE -> r18; disp ctpr1, pci_find }
    addd 0, 0xffff_0000 -> r17
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> function; cmpedb r16, 0 -> absent; addd 0, "no IDE controller on the PCI bus" -> r16 }
    disp ctpr1, fail
    call ctpr1, wbs=ARGS ? absent
    { addd function, 0 -> r16; disp ctpr1, pci_assign }
    call ctpr1, wbs=ARGS
    { std function -> [ide_function]; addd function, 0 -> r16; disp ctpr1, ide_ports }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine ide_ports                      # ide_ports(function): where its registers are now
    .reg function r0, class r9, command r10, control r11, master r12, native p0
    { setwd wsz=FRAME; ldw [function + CLASS] -> class; addd 0, 0xfffc -> r13 }
    { andd class, NATIVE -> class; ldw [function + BARS] -> command; ldw [function + BARS + 4] -> control }
    { cmpedb class, NATIVE -> native; ldw [function + BARS + 16] -> master }
    { andd command, r13 -> command ? native; andd control, r13 -> control ? native
      addd 0, LEGACY_COMMAND -> command ? ~native; addd 0, LEGACY_CONTROL - 2 -> control ? ~native }
    { andd master, r13 -> master; addd 0, PORTS -> r13; addd 0, NO_INTERRUPTS -> r14 }
    { addd command, r13 -> command; addd control, r13 -> control; addd master, r13 -> master; return ctpr3 }
    addd control, 2 -> control
    { std,2 command -> [ide_command]; std,5 control -> [ide_control] }
    stb,io r14 -> [control]
    { std master -> [ide_master]; ct ctpr3 }

.routine ide_wait                       # ide_wait() -> status with BSY = 0, or with BSY = 1 if that takes too long
    .reg port r8, status r9, left r10, idle p0, dead p1, go_on p2
    { setwd wsz=FRAME; ldd [ide_command] -> port; addd 0, POLLS -> left }
.poll:
    { ldb,io [port + STATUS] -> status; subd left, 1 -> left }
    { cmpandesb status, BSY -> idle; cmpedb left, 0 -> dead; return ctpr3 }
    go_on = ~idle & ~dead
    branch .poll ? go_on
    { addd status, 0 -> r0; ct ctpr3 }

.routine ide_start                      # ide_start(lba, count, command): give the disk a command
    .reg lba r0, count r1, command r2, port r8, mid r9, high r10, device r11
    { setwd wsz=FRAME; ldd [ide_command] -> port; disp ctpr1, ide_wait }
    call ctpr1, wbs=ARGS
    { shrd lba, 8 -> mid; shrd lba, 16 -> high; shrd lba, 24 -> device; return ctpr3 }
    { andd device, 15 -> device }
    { ord device, DEVICE_LBA -> device; stb,io count -> [port + COUNT] }
    stb,io device -> [port + DEVICE]
    { stb,2,io lba -> [port + LBA_LOW]; stb,5,io mid -> [port + LBA_MID] }
    stb,io high -> [port + LBA_HIGH]
    { stb,io command -> [port + STATUS]; ct ctpr3 }

.routine ide_ready                      # ide_ready() -> 0 if a sector may be moved, else the status
    .reg status r8, ready p0
    { setwd wsz=FRAME; disp ctpr1, ide_wait }
    call ctpr1, wbs=ARGS
    { andd r16, BSY | BAD | DRQ -> status; return ctpr3 }
    { cmpedb status, DRQ -> ready; addd r16, 0 -> r0 }
    { addd 0, 0 -> r0 ? ready; ct ctpr3 }

# Four words of a sector come with one wide instruction: channels act on the port in their order.

.routine ide_take                       # ide_take(buffer): a sector from the disk
    .reg to r0, port r8, left r9, a r10, b r11, c r12, d r13, last p0
    { setwd wsz=FRAME; ldd [ide_command] -> port; addd 0, 512 / 8 -> left; return ctpr3 }
.eight:
    { ldh,0,io [port] -> a; ldh,2,io [port] -> b; ldh,3,io [port] -> c; ldh,5,io [port] -> d; subd,1 left, 1 -> left }
    { shl_ord,1 b, 16, a -> a; shl_ord,4 d, 16, c -> c; cmpedb,0 left, 0 -> last }
    shl_ord c, 32, a -> a
    { std a -> [to]; addd to, 8 -> to; branch .eight ? ~last }
    ct ctpr3

.routine ide_give                       # ide_give(buffer): a sector to the disk
    .reg from r0, port r8, left r9, a r10, b r11, c r12, d r13, last p0
    { setwd wsz=FRAME; ldd [ide_command] -> port; addd 0, 512 / 8 -> left; return ctpr3 }
.eight:
    { ldd [from] -> a; addd from, 8 -> from; subd left, 1 -> left }
    { shrd a, 16 -> b; shrd a, 32 -> c; shrd a, 48 -> d; cmpedb left, 0 -> last }
    { sth,2,io a -> [port]; sth,5,io b -> [port] }
    { sth,2,io c -> [port]; sth,5,io d -> [port]; branch .eight ? ~last }
    ct ctpr3

.routine ide_finish                     # ide_finish() -> 0, or the status if the command went wrong
    .reg status r8, good p0
    { setwd wsz=FRAME; disp ctpr1, ide_wait }
    call ctpr1, wbs=ARGS
    { andd r16, BSY | BAD | DRQ -> status; return ctpr3 }
    { cmpedb status, 0 -> good; addd r16, 0 -> r0 }
    { addd 0, 0 -> r0 ? good; ct ctpr3 }

.routine ide_read                       # ide_read(lba, count, buffer) -> 0 or the status; by PIO
    .reg count r1, buffer r2, burst r8, left r9, lba r10, none p0, whole p1, good p2
    { setwd wsz=FRAME; addd r0, 0 -> lba }
.burst:
    { cmpedb count, 0 -> none; cmpbedb count, BURST -> whole; addd 0, BURST -> burst }
    { addd count, 0 -> burst ? whole; disp ctpr1, ide_start; addd lba, 0 -> r16 }
    branch .done ? none
    { call ctpr1, wbs=ARGS; addd burst, 0 -> r17; addd 0, READ_SECTORS -> r18; addd burst, 0 -> left }
.sector:
    disp ctpr1, ide_ready
    { call ctpr1, wbs=ARGS; subd left, 1 -> left }
    { cmpedb r16, 0 -> good; addd r16, 0 -> r0; return ctpr3 }
    { ct ctpr3 ? ~good }
    { addd buffer, 0 -> r16; disp ctpr1, ide_take }
    { call ctpr1, wbs=ARGS; addd buffer, 512 -> buffer; cmpedb left, 0 -> none }
    branch .sector ? ~none
    { addd lba, burst -> lba; subd count, burst -> count; branch .burst }
.done:
    return ctpr3
    { addd 0, 0 -> r0; ct ctpr3 }

.routine ide_write                      # ide_write(lba, count, buffer) -> 0 or the status; by PIO
    .reg count r1, buffer r2, burst r8, left r9, lba r10, none p0, whole p1, good p2
    { setwd wsz=FRAME; addd r0, 0 -> lba }
.burst:
    { cmpedb count, 0 -> none; cmpbedb count, BURST -> whole; addd 0, BURST -> burst }
    { addd count, 0 -> burst ? whole; disp ctpr1, ide_start; addd lba, 0 -> r16 }
    branch .done ? none
    { call ctpr1, wbs=ARGS; addd burst, 0 -> r17; addd 0, WRITE_SECTORS -> r18; addd burst, 0 -> left }
.sector:
    disp ctpr1, ide_ready
    { call ctpr1, wbs=ARGS; subd left, 1 -> left }
    { cmpedb r16, 0 -> good; addd r16, 0 -> r0; return ctpr3 }
    { ct ctpr3 ? ~good }
    { addd buffer, 0 -> r16; disp ctpr1, ide_give }
    { call ctpr1, wbs=ARGS; addd buffer, 512 -> buffer; cmpedb left, 0 -> none }
    branch .sector ? ~none
    disp ctpr1, ide_finish
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r0; return ctpr3 }
    { ct ctpr3 ? ~good }
    { addd lba, burst -> lba; subd count, burst -> count; branch .burst }
.done:
    return ctpr3
    { addd 0, 0 -> r0; ct ctpr3 }

.routine ide_flush                      # ide_flush() -> 0 or the status
    { setwd wsz=FRAME; addd 0, 0 -> r16; addd 0, 0 -> r17; addd 0, FLUSH_CACHE -> r18; disp ctpr1, ide_start }
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_finish
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> r0; return ctpr3 }
    ct ctpr3

.routine ide_identify                   # ide_identify() -> sectors; the data in SECTOR; fails without a disk
    .reg present p0
    { setwd wsz=FRAME; addd 0, 0 -> r16; addd 0, 0 -> r17; addd 0, IDENTIFY_DEVICE -> r18; disp ctpr1, ide_start }
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_ready
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> present; addd 0, "no disk: it does not answer IDENTIFY DEVICE" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? ~present
    { addd 0, SECTOR -> r16; disp ctpr1, ide_take }
    call ctpr1, wbs=ARGS
    addd 0, SECTOR -> r8
    { ldw [r8 + 60 * 2] -> r0; return ctpr3 }    # words 60 and 61: what 28 bits reach
    ct ctpr3

.routine ide_complain                   # ide_complain(what, lba, status): say what went wrong and stop
    .reg what r0, lba r1, status r2, port r8
    { setwd wsz=FRAME; addd r0, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd lba, 0 -> r16; disp ctpr1, print_decimal }
    call ctpr1, wbs=ARGS
    { addd 0, ": disk error, status 0x" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd status, 0 -> r16; addd 0, 2 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    { addd 0, ", error 0x" -> r16; disp ctpr1, print; ldd [ide_command] -> port }
    call ctpr1, wbs=ARGS
    ldb,io [port + ERROR] -> r16
    { addd 0, 2 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    { addd 0, "" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS
