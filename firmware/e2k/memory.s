# Bytes in memory: copy, clear, compare, add up.

    .include "calls.s"

.routine copy                           # copy(to, from, bytes): upwards, in eights as long as there are eight
    .reg to r0, from r1, left r2, value r8, none p0, small p1
    setwd wsz=FRAME
.eights:
    { cmpbdb left, 8 -> small; cmpedb left, 0 -> none; return ctpr3 }
    branch .bytes ? small
    { ldd,ua [from] -> value; addd from, 8 -> from; subd left, 8 -> left }
    { std,ua value -> [to]; addd to, 8 -> to; branch .eights }
.bytes:
    ct ctpr3 ? none
    { ldb [from] -> value; addd from, 1 -> from; subd left, 1 -> left }
    { stb value -> [to]; addd to, 1 -> to; cmpedb left, 0 -> none }
    branch .bytes

.routine clear                          # clear(to, bytes): to and bytes are multiples of 8
    .reg to r0, left r1, zero r8, none p0
    { setwd wsz=FRAME; addd 0, 0 -> zero; cmpedb left, 0 -> none; return ctpr3 }
.next:
    ct ctpr3 ? none
    { std zero -> [to]; addd to, 8 -> to; subd left, 8 -> left; cmpedb left, 8 -> none }
    branch .next

.routine length                         # length(text) -> bytes before its NUL
    .reg text r0, at r8, letter r9, end p0
    { setwd wsz=FRAME; addd text, 0 -> at }
.next:
    { ldb [at] -> letter; addd at, 1 -> at }
    cmpesb letter, 0 -> end
    branch .next ? ~end
    { subd at, text -> text; return ctpr3 }
    { subd text, 1 -> text; ct ctpr3 }

.routine same                           # same(text, other) -> 1 if both texts are equal, else 0
    .reg text r0, other r1, letter r8, rival r9, equal p0, end p1, go_on p2
    setwd wsz=FRAME
.next:
    { ldb [text] -> letter; ldb [other] -> rival; addd text, 1 -> text; addd other, 1 -> other }
    { cmpesb letter, rival -> equal; cmpesb letter, 0 -> end; return ctpr3 }
    go_on = equal & ~end
    branch .next ? go_on
    { addd 0, 0 -> r0 ? ~equal; addd 0, 1 -> r0 ? equal; ct ctpr3 }

.routine checksum                       # checksum(bytes, count, sum) -> sum: rotated left by one, plus the next eight
    .reg at r0, left r1, sum r2, value r8, none p0
    { setwd wsz=FRAME; cmpedb left, 0 -> none; return ctpr3 }
    branch .done ? none
.next:
    { ldd [at] -> value; addd at, 8 -> at; subd left, 8 -> left; cmpedb left, 8 -> none }
    { scl_addd sum, 1, value -> sum; branch .next ? ~none }
.done:
    { addd sum, 0 -> r0; ct ctpr3 }

.routine matches                        # matches(bytes, others, count) -> 1 if they are, else 0
    .reg at r0, other r1, left r2, value r8, rival r9, none p0, alike p1
    { setwd wsz=FRAME; cmpedb left, 0 -> none; addd 0, 1 -> r10 }
    branch .done ? none
.next:
    { ldb [at] -> value; ldb [other] -> rival; addd at, 1 -> at; addd other, 1 -> other; subd left, 1 -> left }
    { cmpesb value, rival -> alike; cmpedb left, 0 -> none }
    { addd 0, 0 -> r10 ? ~alike; branch .done ? ~alike }
    branch .next ? ~none
.done:
    return ctpr3
    { addd r10, 0 -> r0; ct ctpr3 }
