#include "virtio_blk.h"
#include "console.h"

enum {  // 4.2.2 and, for the legacy ones, 4.2.4
    MAGIC_VALUE = 0x000,
    VERSION = 0x004,
    DEVICE_ID = 0x008,
    DEVICE_FEATURES = 0x010,
    DEVICE_FEATURES_SEL = 0x014,
    DRIVER_FEATURES = 0x020,
    DRIVER_FEATURES_SEL = 0x024,
    LEGACY_GUEST_PAGE_SIZE = 0x028,
    QUEUE_SEL = 0x030,
    QUEUE_NUM_MAX = 0x034,
    QUEUE_NUM = 0x038,
    LEGACY_QUEUE_ALIGN = 0x03c,
    LEGACY_QUEUE_PFN = 0x040,
    QUEUE_READY = 0x044,
    QUEUE_NOTIFY = 0x050,
    INTERRUPT_STATUS = 0x060,
    INTERRUPT_ACK = 0x064,
    STATUS = 0x070,
    QUEUE_DESC = 0x080,
    QUEUE_DRIVER = 0x090,
    QUEUE_DEVICE = 0x0a0,
    CONFIG_GENERATION = 0x0fc,
    CONFIG = 0x100,
};

enum {  // 5.2.4: block device configuration
    CONFIG_CAPACITY = CONFIG + 0,
    CONFIG_SIZE_MAX = CONFIG + 8,
    CONFIG_SEG_MAX = CONFIG + 12,
    CONFIG_BLK_SIZE = CONFIG + 20,
};

enum {  // 2.1
    ACKNOWLEDGE = 1,
    DRIVER = 2,
    DRIVER_OK = 4,
    FEATURES_OK = 8,
    DEVICE_NEEDS_RESET = 64,
};

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };              // 2.7.5
enum { NO_INTERRUPT = 1, NO_NOTIFY = 1 };                // 2.7.6 and 2.7.8
enum { MAGIC = 0x74726976, BLOCK_DEVICE = 2, QUEUE_USED = 1 };

static u32 get(const struct disk *disk, u32 offset)
{
    return *(volatile u32 *)(disk->base + offset);
}

static void set(const struct disk *disk, u32 offset, u32 value)
{
    *(volatile u32 *)(disk->base + offset) = value;
}

int disk_find(struct disk *disk)
{
    for (u32 index = 0; index < VIRTIO_SLOTS; index++) {
        disk->index = index;
        disk->base = VIRTIO_BASE + (uptr)VIRTIO_STRIDE * index;
        if (get(disk, MAGIC_VALUE) == MAGIC && get(disk, DEVICE_ID) == BLOCK_DEVICE)
            return 1;
    }
    return 0;
}

static u64 read_capacity(const struct disk *disk)
{
    // Two halves: the modern transport has a generation to tell that they belong together, the legacy one has not.
    for (;;) {
        u32 before = disk->version == 1 ? 0 : get(disk, CONFIG_GENERATION);
        u64 capacity = get(disk, CONFIG_CAPACITY) | (u64)get(disk, CONFIG_CAPACITY + 4) << 32;
        if (disk->version == 1 || get(disk, CONFIG_GENERATION) == before)
            return capacity;
    }
}

static void negotiate(struct disk *disk)
{
    u64 wanted = F_WANTED;
    set(disk, DEVICE_FEATURES_SEL, 0);
    disk->offered = get(disk, DEVICE_FEATURES);
    if (disk->version != 1) {
        set(disk, DEVICE_FEATURES_SEL, 1);
        disk->offered |= (u64)get(disk, DEVICE_FEATURES) << 32;
        if (!(disk->offered & F_VERSION_1))
            fail("modern virtio-mmio without VIRTIO_F_VERSION_1");
        wanted |= F_VERSION_1;
    }
    disk->accepted = disk->offered & wanted;
    set(disk, DRIVER_FEATURES_SEL, 0);
    set(disk, DRIVER_FEATURES, (u32)disk->accepted);
    if (disk->version != 1) {
        set(disk, DRIVER_FEATURES_SEL, 1);
        set(disk, DRIVER_FEATURES, (u32)(disk->accepted >> 32));
        set(disk, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if (!(get(disk, STATUS) & FEATURES_OK))
            fail("the device refused the features that it offered");
    }
}

static void read_config(struct disk *disk)
{
    disk->capacity = read_capacity(disk);
    disk->block_size = disk->accepted & F_BLK_SIZE ? get(disk, CONFIG_BLK_SIZE) : 512;
    if (disk->block_size < 512 || disk->block_size > BUFFER_SIZE || disk->block_size & (disk->block_size - 1))
        fail_at("block size", 0, 512, disk->block_size);

    disk->segments_max = disk->accepted & F_SEG_MAX ? get(disk, CONFIG_SEG_MAX) : 1;
    if (disk->segments_max > SEGMENTS_MAX)
        disk->segments_max = SEGMENTS_MAX;

    u32 size_max = disk->accepted & F_SIZE_MAX ? get(disk, CONFIG_SIZE_MAX) : BUFFER_SIZE;
    disk->request_max = REQUEST_SECTORS;
    while (disk->request_max > disk->block_size / 512 && disk->request_max * 512 > size_max)
        disk->request_max /= 2;
}

static void set_address(struct disk *disk, u32 offset, volatile void *address)
{
    set(disk, offset, (u32)(uptr)address);
    set(disk, offset + 4, (u32)((uptr)address >> 32));
}

static void set_up_queue(struct disk *disk)
{
    set(disk, QUEUE_SEL, 0);
    u32 queue_max = get(disk, QUEUE_NUM_MAX);
    if (queue_max < 3)
        fail_at("queue size", 0, QUEUE_MAX, queue_max);
    disk->queue_size = QUEUE_MAX;
    while (disk->queue_size > queue_max)
        disk->queue_size /= 2;
    if (disk->queue_size < 3)  // 3 descriptors but a power of two
        fail_at("queue size", 0, QUEUE_MAX, queue_max);

    // The rings are cleared before the device learns where they are: it may look at once.
    volatile u64 *word = (volatile u64 *)&disk->ring;
    for (u32 i = 0; i < sizeof disk->ring / sizeof *word; i++)
        word[i] = 0;
    disk->descriptors = (volatile struct descriptor *)disk->ring.driver_part;
    disk->available = (volatile u16 *)(disk->descriptors + disk->queue_size);
    disk->used = (volatile u16 *)disk->ring.device_part;
    disk->available_index = disk->notified_index = disk->used_index = 0;
    memory_barrier();

    set(disk, QUEUE_NUM, disk->queue_size);
    if (disk->version == 1) {
        set(disk, LEGACY_GUEST_PAGE_SIZE, RING_ALIGN);
        set(disk, LEGACY_QUEUE_ALIGN, RING_ALIGN);
        set(disk, LEGACY_QUEUE_PFN, (u32)((uptr)&disk->ring / RING_ALIGN));
    } else {
        set_address(disk, QUEUE_DESC, disk->descriptors);
        set_address(disk, QUEUE_DRIVER, disk->available);
        set_address(disk, QUEUE_DEVICE, disk->used);
        set(disk, QUEUE_READY, 1);
    }
}

void disk_start(struct disk *disk)
{
    // 3.1.1, in its order.
    disk->version = get(disk, VERSION);
    if (disk->version != 1 && disk->version != 2)
        fail_at("virtio-mmio version", 0, 2, disk->version);
    set(disk, STATUS, 0);
    set(disk, STATUS, ACKNOWLEDGE);
    set(disk, STATUS, ACKNOWLEDGE | DRIVER);
    negotiate(disk);
    read_config(disk);
    set_up_queue(disk);
    u32 features_ok = disk->version == 1 ? 0 : FEATURES_OK;
    set(disk, STATUS, ACKNOWLEDGE | DRIVER | features_ok | DRIVER_OK);

    disk->wait_for_interrupt_status = disk->awake = 0;
    disk->requests = disk->bytes = 0;
    disk_set_in_flight(disk, 1);
}

void disk_stop(struct disk *disk)
{
    set(disk, STATUS, 0);
}

void disk_set_in_flight(struct disk *disk, u32 wanted)
{
    u32 room = disk->accepted & F_INDIRECT_DESC ? disk->queue_size : disk->queue_size / 3u;
    disk->in_flight_max = (u16)(wanted < 1 ? 1 : wanted > room ? room : wanted);
    disk->stride = disk->in_flight_max * 3 > disk->queue_size ? 1 : 3;
    disk->in_flight = 0;
    disk->free_count = disk->in_flight_max;
    for (u32 i = 0; i < QUEUE_MAX; i++) {
        disk->free[i] = (u8)(disk->in_flight_max - 1 - i);  // the last is taken first: slot 0
        disk->slot[i].busy = 0;
    }
}

static void describe(volatile struct descriptor *d, volatile void *address, u32 length, u32 flags, u32 next)
{
    d->address = (uptr)address;
    d->length = length;
    d->flags = (u16)flags;
    d->next = (u16)next;
}

// Header, data, status: at table[0], numbered from `first` (0 in an indirect table). Returns the count.
static u32 describe_request(struct disk *disk, u32 index, volatile struct descriptor *table, u32 first, u32 segments)
{
    struct slot *slot = &disk->slot[index];
    u8 *data = disk->buffer[index];
    u32 count = 0, left = slot->length;
    u32 data_flags = NEXT | (slot->header.type == BLK_WRITE ? 0 : WRITE);

    describe(&table[count], &slot->header, sizeof slot->header, NEXT, first + count + 1);
    count++;
    if (segments > 1 && left > 512) {  // in pieces that are no multiples of a sector: only the sum must be
        u32 head = 200;
        describe(&table[count], data, head, data_flags, first + count + 1);
        count++;
        data += head, left -= head;
        if (segments > 2) {
            u32 middle = left - 56;
            describe(&table[count], data, middle, data_flags, first + count + 1);
            count++;
            data += middle, left -= middle;
        }
    }
    if (left) {
        describe(&table[count], data, left, data_flags, first + count + 1);
        count++;
    }
    describe(&table[count], &slot->status, 1, WRITE, 0);
    return count + 1;
}

u32 disk_submit(struct disk *disk, u32 type, u64 sector, u32 length)
{
    u32 index = disk->free[--disk->free_count];
    struct slot *slot = &disk->slot[index];
    slot->header.type = type;
    slot->header.reserved = 0;
    slot->header.sector = sector;
    slot->status = BLK_UNTOUCHED;
    slot->busy = 1;
    slot->length = length;
    slot->writable = (type == BLK_WRITE ? 0 : length) + 1;
    disk->in_flight++;

    // With indirect descriptors every second request uses them, so that both kinds are in flight together; all of
    // them do when the queue has no room for three descriptors each.
    u32 head = index * disk->stride;
    volatile struct descriptor *first = &disk->descriptors[head];
    if (disk->accepted & F_INDIRECT_DESC && (disk->stride == 1 || disk->available_index & 1)) {
        u32 count = describe_request(disk, index, slot->table, 0, disk->segments_max);
        describe(first, slot->table, count * sizeof(struct descriptor), INDIRECT, 0);
    } else {
        describe_request(disk, index, first, head, 1);
    }
    disk->available[2 + disk->available_index % disk->queue_size] = (u16)head;
    disk->available_index++;
    return index;
}

static volatile u16 *used_event(struct disk *disk)
{
    return &disk->available[2 + disk->queue_size];
}

static volatile u16 *avail_event(struct disk *disk)
{
    return &disk->used[2 + disk->queue_size * 4];
}

// Say whether the next completion shall raise an interrupt (2.7.7): only a driver that waits for one wants it.
static void ask_for_interrupts(struct disk *disk)
{
    if (disk->accepted & F_EVENT_IDX)
        *used_event(disk) = (u16)(disk->wait_for_interrupt_status ? disk->used_index : disk->used_index - 1);
    else
        disk->available[0] = disk->wait_for_interrupt_status ? 0 : NO_INTERRUPT;
}

void disk_kick(struct disk *disk)
{
    u16 old = disk->notified_index, new = disk->available_index;
    if (old == new)
        return;
    ask_for_interrupts(disk);
    memory_barrier();  // what the ring points to, before the index that gives it to the device
    disk->available[1] = new;
    memory_barrier();  // the index before the question whether the device is still looking: otherwise both sleep
    disk->notified_index = new;

    int wanted = disk->accepted & F_EVENT_IDX ? (u16)(new - *avail_event(disk) - 1) < (u16)(new - old)  // 2.7.10
                                              : !(disk->used[0] & NO_NOTIFY);
    if (wanted)
        set(disk, QUEUE_NOTIFY, 0);
}

static void wait_for_used(struct disk *disk)
{
    for (u32 spins = 1; disk->used[1] == disk->used_index; spins++) {
        if (!(spins % 0x100000) && get(disk, STATUS) & DEVICE_NEEDS_RESET)
            fail("the device needs a reset");
    }
}

// The same as a driver with an interrupt handler: look at the ring only after the device has raised its interrupt, then
// until the ring is empty. A device that loses the last interrupt leaves us here for ever, which is what the test that
// chose this way of waiting is after.
static void wait_for_interrupt(struct disk *disk)
{
    while (!disk->awake || disk->used[1] == disk->used_index) {
        u32 status;
        do
            status = get(disk, INTERRUPT_STATUS);
        while (!status);
        set(disk, INTERRUPT_ACK, status);
        memory_barrier();  // acknowledge before looking: a later completion raises it again
        if (get(disk, STATUS) & DEVICE_NEEDS_RESET)
            fail("the device needs a reset");
        disk->awake = status & QUEUE_USED;
    }
}

static void sleep_when_empty(struct disk *disk)
{
    if (disk->used[1] != disk->used_index)
        return;
    ask_for_interrupts(disk);
    memory_barrier();  // ask before the last look: a completion in between is either seen or announced
    disk->awake = disk->used[1] != disk->used_index;
}

u32 disk_wait(struct disk *disk)
{
    if (disk->wait_for_interrupt_status)
        wait_for_interrupt(disk);
    else
        wait_for_used(disk);
    memory_barrier();  // the index before what it covers

    u16 ready = (u16)(disk->used[1] - disk->used_index);
    volatile struct used_element *elements = (volatile struct used_element *)&disk->used[2];
    u32 id = elements[disk->used_index % disk->queue_size].id;
    u32 length = elements[disk->used_index % disk->queue_size].length;
    u32 index = id / disk->stride;
    if (ready > disk->in_flight)
        fail_at("more used entries than requests in flight", 0, disk->in_flight, ready);
    if (id % disk->stride || index >= disk->in_flight_max || !disk->slot[index].busy)
        fail_at("used entry for a request that is not in flight", 0, 0, id);
    disk->used_index++;
    if (disk->wait_for_interrupt_status)
        sleep_when_empty(disk);

    struct slot *slot = &disk->slot[index];
    if (length > slot->writable)
        fail_at("used length", slot->header.sector, slot->writable, length);
    if (*(volatile u8 *)&slot->status == BLK_UNTOUCHED)
        fail_at("status byte not written", slot->header.sector, BLK_OK, BLK_UNTOUCHED);
    slot->busy = 0;
    disk->in_flight--;
    disk->free[disk->free_count++] = (u8)index;
    disk->requests++;
    disk->bytes += slot->header.type == BLK_READ || slot->header.type == BLK_WRITE ? slot->length : 0;
    return index;
}

u32 disk_request(struct disk *disk, u32 type, u64 sector, u32 length)
{
    disk_submit(disk, type, sector, length);
    disk_kick(disk);
    return disk_wait(disk);
}
