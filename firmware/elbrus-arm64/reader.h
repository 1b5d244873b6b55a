// Ways to read the disk from its first sector on into memory. Each returns when all of it is there.
#ifndef READER_H
#define READER_H
#include "board.h"

enum { SECTOR = 512, MIB = 1 << 20 };

struct prd {  // SFF-8038i 1.2
    u32 address;
    u16 bytes;  // 0 is 64 KiB
    u16 flags;
};

struct descriptor {  // VIRTIO 1.2 2.7.5
    u64 address;
    u32 length;
    u16 flags;
    u16 next;
};

enum { QUEUE_SIZE = 64, IN_FLIGHT = 16, PRDS = 512 };

struct work {
    _Alignas(65536) struct prd prd[PRDS];  // a table may not cross 64 KiB
    _Alignas(4096) struct descriptor descriptors[QUEUE_SIZE];
    _Alignas(4096) volatile u16 available[2 + QUEUE_SIZE + 1];
    _Alignas(4096) volatile u16 used[2 + 4 * QUEUE_SIZE + 1];
    struct {
        u32 type, reserved;
        u64 sector;
    } header[IN_FLIGHT];
    volatile u8 status[IN_FLIGHT];
};
_Static_assert(sizeof(struct work) <= WORK_SIZE, "struct work does not fit between its start and the buffer");

void read_pio(u64 to, u64 bytes);                                     // READ SECTORS EXT, legacy ports
void read_dma(struct work *work, u64 to, u64 bytes, int interrupts);  // READ DMA EXT, bus master
void read_virtio(struct work *work, u64 to, u64 bytes);               // the modern interface of virtio-pci

#endif
