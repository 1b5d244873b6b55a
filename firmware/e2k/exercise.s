# What the disk programs do: read, write a pattern, read it back and compare. Each brings its own
#
#     disk_open() -> sectors; disk_read, disk_write(lba, count, buffer); disk_flush()
#
# with up to CHUNK sectors a call; they do not return from an error. The pattern: sector n is 64 numbers of 64 bits,
# the i-th (n * 64 + i) * STEP, so that each number of the disk is another.

    .include "start.s"
    .include "memory.s"

    .equ READ_SECTORS_FROM, 0
    .equ READ_SECTORS_COUNT, 128
    .equ WRITE_FROM, 37                 # neither a multiple of a cluster nor of a chunk
    .equ WRITE_COUNT, 75
    .equ CHUNK, 16
    .equ STEP, 0x9e37_79b9_7f4a_7c15

.routine main
    .reg sectors r8, few p0
    { setwd wsz=FRAME; addd 0, "e2kdisk " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, program -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, '\n' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    disp ctpr1, disk_open
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> sectors; addd r16, 0 -> r17; addd 0, "sectors " -> r16; disp ctpr1, print_with }
    call ctpr1, wbs=ARGS
    { cmpbdb sectors, READ_SECTORS_COUNT -> few; addd 0, "\nFAIL: the disk is too small" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? few
    { addd 0, "\nread " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, READ_SECTORS_FROM -> r16; addd 0, READ_SECTORS_COUNT -> r17; disp ctpr1, read_and_sum }
    call ctpr1, wbs=ARGS
    { addd 0, "\nwrite " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, WRITE_FROM -> r16; addd 0, WRITE_COUNT -> r17; disp ctpr1, write_pattern }
    call ctpr1, wbs=ARGS
    disp ctpr1, disk_flush
    call ctpr1, wbs=ARGS
    { addd 0, "\nverify " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd 0, WRITE_FROM -> r16; addd 0, WRITE_COUNT -> r17; disp ctpr1, verify_pattern }
    call ctpr1, wbs=ARGS
    { addd 0, "\nPASS\n" -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine print_with                     # print_with(text, number)
    { setwd wsz=FRAME; addd r0, 0 -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd r1, 0 -> r16; disp ctpr1, print_decimal }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine print_range                    # print_range(lba, count): "37+75"
    { setwd wsz=FRAME; addd r0, 0 -> r16; disp ctpr1, print_decimal }
    call ctpr1, wbs=ARGS
    { addd 0, "+" -> r16; addd r1, 0 -> r17; disp ctpr1, print_with }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine chunk                          # chunk(left) -> sectors of the next call
    .reg left r0, fits p0
    { setwd wsz=FRAME; cmpbdb left, CHUNK -> fits; return ctpr3 }
    { addd 0, CHUNK -> r0 ? ~fits; ct ctpr3 }

.routine read_and_sum                   # read_and_sum(lba, count): and print the checksum of it all
    .reg lba r0, left r1, now r8, sum r9, none p0
    { setwd wsz=FRAME; addd 0, 0 -> sum; addd lba, 0 -> r16; addd left, 0 -> r17; disp ctpr1, print_range }
    call ctpr1, wbs=ARGS
.next:
    { addd left, 0 -> r16; cmpedb left, 0 -> none; disp ctpr1, chunk }
    branch .done ? none
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> now; addd lba, 0 -> r16; addd r16, 0 -> r17; addd 0, BUFFER -> r18; disp ctpr1, disk_read }
    call ctpr1, wbs=ARGS
    { addd 0, BUFFER -> r16; shld now, 9 -> r17; addd sum, 0 -> r18; disp ctpr1, checksum }
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> sum; addd lba, now -> lba; subd left, now -> left; branch .next }
.done:
    { addd 0, " checksum " -> r16; disp ctpr1, print }
    call ctpr1, wbs=ARGS
    { addd sum, 0 -> r16; addd 0, 16 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine write_pattern                  # write_pattern(lba, count)
    .reg lba r0, left r1, now r8, at r9, value r10, step r11, words r12, none p0, last p1
    { setwd wsz=FRAME; addd lba, 0 -> r16; addd left, 0 -> r17; disp ctpr1, print_range }
    call ctpr1, wbs=ARGS
    { addd 0, STEP -> step; shld lba, 6 -> value }
    muld value, step -> value           # of the first number
.next:
    { addd left, 0 -> r16; cmpedb left, 0 -> none; disp ctpr1, chunk }
    branch .done ? none
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> now; shld r16, 6 -> words; addd 0, BUFFER -> at }
.fill:
    { std value -> [at]; addd at, 8 -> at; addd value, step -> value; subd words, 1 -> words
      cmpedb words, 1 -> last }
    branch .fill ? ~last
    { addd lba, 0 -> r16; addd now, 0 -> r17; addd 0, BUFFER -> r18; disp ctpr1, disk_write }
    call ctpr1, wbs=ARGS
    { addd lba, now -> lba; subd left, now -> left; branch .next }
.done:
    return ctpr3
    ct ctpr3

.routine verify_pattern                 # verify_pattern(lba, count): fails at the first byte that is wrong
    .reg lba r0, left r1, now r8, at r9, value r10, step r11, words r12, found r13, none p0, last p1, right p2
    { setwd wsz=FRAME; addd lba, 0 -> r16; addd left, 0 -> r17; disp ctpr1, print_range }
    call ctpr1, wbs=ARGS
    { addd 0, STEP -> step; shld lba, 6 -> value }
    muld value, step -> value
.next:
    { addd left, 0 -> r16; cmpedb left, 0 -> none; disp ctpr1, chunk }
    branch .done ? none
    call ctpr1, wbs=ARGS
    { addd r16, 0 -> now; shld r16, 6 -> words; addd 0, BUFFER -> at }
    { addd lba, 0 -> r16; addd now, 0 -> r17; addd 0, BUFFER -> r18; disp ctpr1, disk_read }
    call ctpr1, wbs=ARGS
.compare:
    { ldd [at] -> found; addd at, 8 -> at; subd words, 1 -> words; cmpedb words, 1 -> last }
    { cmpedb found, value -> right; addd value, step -> value }
    branch .wrong ? ~right
    branch .compare ? ~last
    { addd lba, now -> lba; subd left, now -> left; branch .next }
.wrong:
    { addd 0, "\nFAIL: differs at byte " -> r16; disp ctpr1, print_with }
    { subd at, BUFFER + 8 -> at; shld lba, 9 -> r17 }
    addd at, r17 -> r17
    call ctpr1, wbs=ARGS
    { addd 0, "" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS
.done:
    return ctpr3
    ct ctpr3
