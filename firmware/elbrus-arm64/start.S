// Entry: EL1, MMU off, at the first byte of the image, which is 4 KiB aligned; x1 = boot info block, not used.
#include "cpu.h"

    .section .text.start, "ax"
    .globl _start
_start:
    // The first four exception vectors can never be used, so the program starts inside them: ../arm64/start.S.
    adr     x0, _start
    msr     vbar_el1, x0
    msr     spsel, #1
    ldr     x0, =STACK_TOP
    mov     sp, x0
    ldr     x0, =WORK_BASE
    mov     x29, xzr
    mov     x30, xzr
    b       reader_main
    .ltorg

    .org    0x200               // synchronous, current EL with SP_ELx
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       unexpected_trap
    .org    0x280               // IRQ: masked since reset
    b       .
    .org    0x300               // FIQ: the same
    b       .
    .org    0x380               // SError
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       unexpected_trap
