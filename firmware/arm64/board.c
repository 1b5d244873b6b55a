#include "board.h"

// PL011 (ARM DDI 0183, 3.2)
enum { UARTDR = 0x00, UARTFR = 0x18, UARTLCR_H = 0x2c, UARTCR = 0x30 };
enum { FR_TXFF = 1 << 5, LCR_H_8N1_FIFO = 0x70, CR_UARTEN_TXE = 0x101 };

static volatile u32 *uart(u32 offset)
{
    return (volatile u32 *)(uptr)(UART_BASE + offset);
}

void uart_start(void)
{
    *uart(UARTLCR_H) = LCR_H_8N1_FIFO;
    *uart(UARTCR) = CR_UARTEN_TXE;
}

void uart_put(char c)
{
    while (*uart(UARTFR) & FR_TXFF)
        ;
    *uart(UARTDR) = (u8)c;
}

// PSCI (ARM DEN 0022, 5.10) has no way to say that the run failed: the UART has said it.
_Noreturn void power_off(int failed)
{
    (void)failed;
    register u64 function __asm__("x0") = 0x84000008;  // SYSTEM_OFF
    __asm__ volatile("hvc #0" : "+r"(function)::"memory");
    for (;;)
        __asm__ volatile("wfi");
}
