#ifndef CONSOLE_H
#define CONSOLE_H
#include "board.h"

void put_text(const char *text);
void put_decimal(u64 value);
void put_hex(u64 value);  // 0x and at least one digit, no leading zeros

// Say what went wrong and power off. The line always starts with "FAIL: ", so that a test needs to look for nothing
// else; the second form also names the sector and the two values that should have been equal.
_Noreturn void fail(const char *what);
_Noreturn void fail_at(const char *what, u64 sector, u64 expected, u64 got);

#endif
