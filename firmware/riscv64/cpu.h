// QEMU's riscv64 `virt` board, as far as the program needs it. Also included by start.S.
#define CPU_NAME "riscv64"
#define UART_BASE 0x10000000    // ns16550, byte registers
#define VIRTIO_BASE 0x10001000
#define VIRTIO_STRIDE 0x1000
#define VIRTIO_SLOTS 8
#define TEST_FINISHER 0x00100000

// RAM begins at 0x80000000 with this image; the device tree is somewhere above 0x80400000.
#define STACK_TOP 0x80110000    // the stack is the 64 KiB below
#define WORK_BASE 0x80110000
#define WORK_SIZE 0x002f0000    // up to 0x80400000

#ifndef __ASSEMBLER__
static inline void memory_barrier(void)
{
    __asm__ volatile("fence iorw, iorw" ::: "memory");
}
#endif
