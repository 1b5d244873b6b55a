// virtio-blk through the modern interface of virtio-pci, polled. Section numbers are those of VIRTIO 1.2.
#include "console.h"
#include "pci.h"
#include "reader.h"

enum { COMMON_CFG = 1, NOTIFY_CFG = 2, VENDOR_CAPABILITY = 0x09 };  // 4.1.4
enum { BAR_BASE = 0x90000000 };
enum {  // 4.1.4.3
    DEVICE_FEATURE_SELECT = 0x00,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    DEVICE_STATUS = 0x14,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE_AT = 0x18,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };  // 2.1
enum { NEXT = 1, WRITE = 2, NO_INTERRUPT = 1 };                        // 2.7.5, 2.7.6
enum { BLK_READ = 0, REQUEST = MIB };

struct function {
    uptr common;
    volatile u16 *notify;
};

static volatile u32 *common32(const struct function *function, u32 offset)
{
    return (volatile u32 *)(function->common + offset);
}

static volatile u16 *common16(const struct function *function, u32 offset)
{
    return (volatile u16 *)(function->common + offset);
}

static void set64(const struct function *function, u32 offset, u64 value)
{
    *common32(function, offset) = (u32)value;
    *common32(function, offset + 4) = (u32)(value >> 32);
}

static void set_status(const struct function *function, u8 status)
{
    *(volatile u8 *)(function->common + DEVICE_STATUS) = status;
}

// Address of a structure, and where its capability is.
static uptr structure(u32 devfn, u8 type, u32 *capability)
{
    for (u32 at = config_read(devfn, PCI_CAPABILITIES, 1); at; at = config_read(devfn, at + 1, 1)) {
        if (config_read(devfn, at, 1) != VENDOR_CAPABILITY || config_read(devfn, at + 3, 1) != type)
            continue;
        u32 bar = PCI_BAR0 + 4 * config_read(devfn, at + 4, 1);
        config_write32(devfn, bar, BAR_BASE);
        config_write32(devfn, bar + 4, 0);
        *capability = at;
        return BAR_BASE + config_read(devfn, at + 8, 4);
    }
    fail("virtio: a structure is missing");
}

static struct function start(struct work *work)
{
    struct function function;
    int found = pci_find(0, 0xffff, 0x1af4);
    if (found < 0)
        fail("no virtio device");
    u32 devfn = (u32)found, capability;
    function.common = structure(devfn, COMMON_CFG, &capability);
    uptr notify = structure(devfn, NOTIFY_CFG, &capability);
    config_write16(devfn, PCI_COMMAND, PCI_MEMORY | PCI_MASTER);

    set_status(&function, 0);
    set_status(&function, ACKNOWLEDGE | DRIVER);
    for (u32 half = 0; half < 2; half++) {
        *common32(&function, DRIVER_FEATURE_SELECT) = half;
        *common32(&function, DRIVER_FEATURE) = half;  // VERSION_1, bit 32, alone
    }
    set_status(&function, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    *common16(&function, QUEUE_SELECT) = 0;
    *common16(&function, QUEUE_SIZE_AT) = QUEUE_SIZE;
    set64(&function, QUEUE_DESC, (uptr)work->descriptors);
    set64(&function, QUEUE_DRIVER, (uptr)work->available);
    set64(&function, QUEUE_DEVICE, (uptr)work->used);
    work->available[0] = NO_INTERRUPT;
    work->available[1] = work->used[1] = 0;
    *common16(&function, QUEUE_ENABLE) = 1;
    u32 offset = *common16(&function, QUEUE_NOTIFY_OFF) * config_read(devfn, capability + 16, 4);
    function.notify = (volatile u16 *)(notify + offset);
    set_status(&function, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return function;
}

static void prepare(struct work *work, u32 slot, u64 sector, u64 to, u32 bytes)
{
    struct descriptor *chain = &work->descriptors[3 * slot];
    work->header[slot].type = BLK_READ;
    work->header[slot].sector = sector;
    work->status[slot] = 0xff;
    chain[0] = (struct descriptor){(uptr)&work->header[slot], 16, NEXT, (u16)(3 * slot + 1)};
    chain[1] = (struct descriptor){to, bytes, NEXT | WRITE, (u16)(3 * slot + 2)};
    chain[2] = (struct descriptor){(uptr)&work->status[slot], 1, WRITE, 0};
}

void read_virtio(struct work *work, u64 to, u64 bytes)
{
    struct function function = start(work);
    u16 index = 0;
    for (u64 done = 0; done < bytes;) {
        u32 slots = 0;
        for (; slots < IN_FLIGHT && done < bytes; slots++) {
            u32 now = bytes - done < REQUEST ? (u32)(bytes - done) : REQUEST;
            prepare(work, slots, done / SECTOR, to + done, now);
            work->available[2 + index++ % QUEUE_SIZE] = (u16)(3 * slots);
            done += now;
        }
        memory_barrier();
        work->available[1] = index;
        memory_barrier();
        *function.notify = 0;
        while (work->used[1] != index)
            ;
        memory_barrier();
        for (u32 slot = 0; slot < slots; slot++)
            if (work->status[slot])
                fail_at("virtio status", work->header[slot].sector, 0, work->status[slot]);
    }
    set_status(&function, 0);
}
