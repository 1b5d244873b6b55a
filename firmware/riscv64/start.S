// Entry: M-mode, at the first byte of the image, 4 KiB aligned; a0 = hart, a1 = device tree (not used).
#include "cpu.h"

    .section .text.start, "ax"
    .globl _start
_start:
    bnez    a0, park            // one hart does everything
    lla     t0, trap
    csrw    mtvec, t0
    li      sp, STACK_TOP
    li      a0, WORK_BASE
    mv      ra, zero
    tail    guest_main
park:
    wfi
    j       park

    .balign 4                   // mtvec: the low two bits are the mode
trap:
    csrr    a0, mcause
    csrr    a1, mepc
    csrr    a2, mtval
    tail    unexpected_trap
