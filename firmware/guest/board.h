// What the shared program asks of a board. Everything else about a CPU stays in its own folder.
//
// The program has no global variables at all: the image is code and constants only, it may sit in flash, and it runs
// wherever it is loaded. start.S gives it one piece of RAM (struct work) and a stack.
#ifndef BOARD_H
#define BOARD_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long uptr;
_Static_assert(sizeof(u64) == 8 && sizeof(uptr) == 8, "64-bit CPUs only");

// From firmware/<cpu>/cpu.h: CPU_NAME, VIRTIO_BASE, VIRTIO_STRIDE, VIRTIO_SLOTS, and memory_barrier(), which orders
// accesses to RAM against each other and against device registers.
#include "cpu.h"

void uart_start(void);
void uart_put(char c);
_Noreturn void power_off(int failed);

// Called by start.S on any exception: the program expects none.
_Noreturn void unexpected_trap(u64 cause, u64 pc, u64 address);

#endif
