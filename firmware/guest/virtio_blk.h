// A polled virtio-blk driver over virtio-mmio, both the legacy transport (version 1) and the modern one (version 2).
// Section numbers are those of VIRTIO 1.2.
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H
#include "board.h"

enum {
    QUEUE_MAX = 64,      // descriptors, and with indirect tables also requests in flight
    SEGMENTS_MAX = 3,    // data segments of one request
    REQUEST_SECTORS = 64,
    BUFFER_SIZE = REQUEST_SECTORS * 512,
    RING_ALIGN = 4096,
};

enum {  // 5.2.6: request types and status bytes
    BLK_READ = 0,
    BLK_WRITE = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,

    BLK_OK = 0,
    BLK_IOERR = 1,
    BLK_UNSUPP = 2,
    BLK_UNTOUCHED = 0xff,  // our own: what the status byte holds until the device writes it
    ID_SIZE = 20,
};

// Feature bits: 5.2.3 and 6.
#define F_SIZE_MAX (1ull << 1)
#define F_SEG_MAX (1ull << 2)
#define F_RO (1ull << 5)
#define F_BLK_SIZE (1ull << 6)
#define F_FLUSH (1ull << 9)
#define F_INDIRECT_DESC (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)
#define F_WANTED (F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH | F_INDIRECT_DESC | F_EVENT_IDX)

struct descriptor {  // 2.7.5
    u64 address;
    u32 length;
    u16 flags;
    u16 next;
};

struct used_element {  // 2.7.8
    u32 id;
    u32 length;
};

struct blk_header {  // 5.2.6
    u32 type;
    u32 reserved;
    u64 sector;
};

// What one place in flight needs. The device reads and writes these, so they live in RAM at fixed places and no two
// requests in flight share any of them.
struct slot {
    _Alignas(16) struct descriptor table[SEGMENTS_MAX + 2];
    struct blk_header header;
    u8 status;
    u8 busy;
    u32 length;    // bytes of data
    u32 writable;  // bytes that the device may write: data of a read, and the status byte
};

// The one queue. Legacy transports want it as one piece: descriptors and available ring, then the used ring at the
// next multiple of RING_ALIGN (2.7.2). The modern one takes any addresses, so these serve both.
struct ring_memory {
    _Alignas(RING_ALIGN) u8 driver_part[RING_ALIGN];
    u8 device_part[RING_ALIGN];
};

struct disk {
    struct ring_memory ring;
    u8 buffer[QUEUE_MAX][BUFFER_SIZE];
    struct slot slot[QUEUE_MAX];

    uptr base;
    u32 index;  // which virtio-mmio slot of the board
    u32 version;
    u64 offered, accepted;
    u64 capacity;     // sectors
    u32 block_size;   // bytes; requests are multiples of it
    u32 request_max;  // sectors; a power of two
    u32 segments_max;

    u16 queue_size;
    u16 in_flight_max;
    u16 stride;  // descriptors of one place in flight: 3, or 1 when all requests use indirect tables
    volatile struct descriptor *descriptors;
    volatile u16 *available;  // flags, idx, ring[queue_size], used_event
    volatile u16 *used;       // flags, idx, then elements, then avail_event
    u16 available_index;      // published only by disk_kick
    u16 notified_index;
    u16 used_index;

    u8 wait_for_interrupt_status;  // or for the ring alone
    u8 awake;                      // an interrupt has come and the ring was not empty since
    u16 in_flight;
    u16 free_count;
    u8 free[QUEUE_MAX];
    u64 requests, bytes;  // totals, of completed requests
};

int disk_find(struct disk *disk);  // 0 when no slot has a block device
void disk_start(struct disk *disk);
void disk_set_in_flight(struct disk *disk, u32 wanted);  // only while nothing is in flight
void disk_stop(struct disk *disk);

// Put a request in the ring; the data is disk->buffer[slot]. The device is told by disk_kick.
u32 disk_submit(struct disk *disk, u32 type, u64 sector, u32 length);
void disk_kick(struct disk *disk);

// Wait until at least one request is complete and return its slot. The slot is free again at the next disk_submit, so
// look at its header, status and buffer before that.
u32 disk_wait(struct disk *disk);

// One request alone, from start to end; the data is left in disk->buffer[the returned slot].
u32 disk_request(struct disk *disk, u32 type, u64 sector, u32 length);

#endif
