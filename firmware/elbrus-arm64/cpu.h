// The arm64 CPU on the Elbrus board, as far as the program needs it. Also included by start.S.
#define CPU_NAME "arm64 on elbrus"
#define SERIAL_BASE 0x80001000   // ESCC, channel A
#define PORTS_BASE 0x101000000   // I/O ports as memory
#define CONFIG_BASE 0x200000000  // PCI configuration space
#define IOAPIC_BASE 0xfec00000
#define LAPIC_BASE 0xfee00000

// The program is in RAM of its own at 0x100000000; its last MiB but one is the stack. Below 2 GiB everything is free.
#define STACK_TOP 0x100f00000
#define WORK_BASE 0x00100000
#define WORK_SIZE 0x00100000
#define BUFFER_BASE 0x04000000
#define BUFFER_SIZE 0x04000000

#ifndef __ASSEMBLER__
static inline void memory_barrier(void)
{
    __asm__ volatile("dmb sy" ::: "memory");
}

// Interrupts stay masked: a pending one only ends the waiting.
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("wfi" ::: "memory");
}
#endif
