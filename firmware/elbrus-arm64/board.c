#include "board.h"

#include "pci.h"

// ESCC, a Z85C30: a store to the control port names a register, the next access reaches it (UM010903).
enum { CONTROL = 0, DATA = 1 };
enum { RR0_RX = 1 << 0, RR0_TX = 1 << 2 };
enum { WR3_RX_ENABLE_8 = 0xc1, WR5_TX_ENABLE_8 = 0x68 };

static volatile u8 *serial(u32 port)
{
    return (volatile u8 *)(uptr)(SERIAL_BASE + port);
}

static void serial_set(u8 number, u8 value)
{
    *serial(CONTROL) = number;
    *serial(CONTROL) = value;
}

void uart_start(void)
{
    serial_set(3, WR3_RX_ENABLE_8);
    serial_set(5, WR5_TX_ENABLE_8);
}

void uart_put(char c)
{
    while (!(*serial(CONTROL) & RR0_TX))
        ;
    *serial(DATA) = (u8)c;
}

char uart_get(void)
{
    while (!(*serial(CONTROL) & RR0_RX))
        ;
    return (char)*serial(DATA);
}

// Soft off through the SPMC, function 0c.0: SLP_EN and S5 in PM1_CNT (Linux/e2k spmc_regs.h).
_Noreturn void power_off(int failed)
{
    (void)failed;
    config_write32(0x0c << 3, 0x4c, 1 << 13 | 5 << 10);
    for (;;)
        wait_for_interrupt();
}
