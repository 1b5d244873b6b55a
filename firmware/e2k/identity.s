# The texts of IDENTIFY DEVICE: two characters a word, the first in the upper byte; blanks at the end.

    .include "console.s"

.routine print_identity                 # print_identity(title, word, words): from the data in SECTOR
    .reg at r8, left r9, pair r10, end r11, none p0, blank p1, stop_here p2, other p3
    { setwd wsz=FRAME; addd r0, 0 -> r16; disp ctpr1, print; shld r1, 1 -> at; addd r2, 0 -> left }
    call ctpr1, wbs=ARGS
    addd at, SECTOR -> at
    { shld left, 1 -> end; addd at, 0 -> r12 }
    addd at, end -> end
.trim:                                  # end: after the last character that is no blank; words are swapped in place
    ldh [r12] -> pair
    ldh,be [r12] -> r13
    { sth r13 -> [r12]; addd r12, 2 -> r12 }
    cmpedb r12, end -> none
    branch .trim ? ~none
.blanks:
    { subd end, 1 -> r12; cmpedb end, at -> none }
    { ldb [r12] -> r13; branch .done ? none }
    cmpesb r13, ' ' -> blank
    { addd r12, 0 -> end ? blank; branch .blanks ? blank }
.next:
    { ldb [at] -> r16; addd at, 1 -> at; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    cmpedb at, end -> none
    branch .next ? ~none
.done:
    return ctpr3
    ct ctpr3
