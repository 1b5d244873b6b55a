// QEMU's arm64 `virt` board, as far as the program needs it. Also included by start.S.
#define CPU_NAME "arm64"
#define UART_BASE 0x09000000    // PL011
#define VIRTIO_BASE 0x0a000000
#define VIRTIO_STRIDE 0x200
#define VIRTIO_SLOTS 32

// RAM begins at 0x40000000. Its first MiB is left alone: the board puts the device tree there.
#define STACK_TOP 0x40110000    // the stack is the 64 KiB below
#define WORK_BASE 0x40110000
#define WORK_SIZE 0x002f0000    // up to 0x40400000

#ifndef __ASSEMBLER__
static inline void memory_barrier(void)
{
    __asm__ volatile("dmb sy" ::: "memory");
}
#endif
