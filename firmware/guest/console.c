#include "console.h"

void put_text(const char *text)
{
    while (*text)
        uart_put(*text++);
}

void put_decimal(u64 value)
{
    char digits[20];
    unsigned count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        uart_put(digits[--count]);
}

void put_hex(u64 value)
{
    int shift = 60;
    while (shift && !(value >> shift))
        shift -= 4;
    put_text("0x");
    for (; shift >= 0; shift -= 4) {
        unsigned digit = value >> shift & 15;
        uart_put((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
    }
}

_Noreturn void fail(const char *what)
{
    put_text("FAIL: ");
    put_text(what);
    put_text("\n");
    power_off(1);
}

_Noreturn void fail_at(const char *what, u64 sector, u64 expected, u64 got)
{
    put_text("FAIL: ");
    put_text(what);
    put_text(", sector ");
    put_decimal(sector);
    put_text(", expected ");
    put_hex(expected);
    put_text(", got ");
    put_hex(got);
    put_text("\n");
    power_off(1);
}

_Noreturn void unexpected_trap(u64 cause, u64 pc, u64 address)
{
    put_text("FAIL: unexpected trap, cause ");
    put_hex(cause);
    put_text(", pc ");
    put_hex(pc);
    put_text(", address ");
    put_hex(address);
    put_text("\n");
    power_off(1);
}
