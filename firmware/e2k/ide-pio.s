# ide-pio: an ATA disk by programmed I/O. Finds the controller, says what IDENTIFY DEVICE says, runs the exercise.

    .org 0x1_0000_0000
    .include "exercise.s"
    .include "ide.s"
    .include "identity.s"

program: .asciz "ide-pio"

.routine disk_open
    { setwd wsz=FRAME; disp ctpr1, ide_find }
    call ctpr1, wbs=ARGS
    disp ctpr1, ide_identify
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> r8; addd 0, "model " -> r16; addd 0, 27 -> r17; addd 0, 20 -> r18; disp ctpr1, print_identity }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    { addd r8, 0 -> r0; return ctpr3 }
    ct ctpr3

.routine disk_read
    .reg lba r0, good p0
    { setwd wsz=FRAME; addd lba, 0 -> r16; addd r1, 0 -> r17; addd r2, 0 -> r18; disp ctpr1, ide_read }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r18; disp ctpr1, ide_complain }
    { addd lba, 0 -> r17; addd 0, "\nFAIL: read of sector " -> r16 }
    call ctpr1, wbs=ARGS ? ~good
    return ctpr3
    ct ctpr3

.routine disk_write
    .reg lba r0, good p0
    { setwd wsz=FRAME; addd lba, 0 -> r16; addd r1, 0 -> r17; addd r2, 0 -> r18; disp ctpr1, ide_write }
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
