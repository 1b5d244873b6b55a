// Writes a disk full of a known pattern with many requests in flight, reads it back, and says on the UART whether
// every byte was right. What exactly it does is told by sector 0: options.h.
#include "console.h"
#include "options.h"
#include "pattern.h"
#include "virtio_blk.h"

struct work {  // all of the program's memory but the stack; start.S says where
    struct disk disk;
    struct options options;
    u8 id[ID_SIZE + 1];
};
_Static_assert(sizeof(struct work) <= WORK_SIZE, "struct work does not fit between the stack and the end of our RAM");

static const struct {
    u8 bit;
    char name[15];
} FEATURE_NAMES[] = {  // arrays, not pointers: the image holds no addresses
    {1, "SIZE_MAX"}, {2, "SEG_MAX"},        {5, "RO"},         {6, "BLK_SIZE"},
    {9, "FLUSH"},    {28, "INDIRECT_DESC"}, {29, "EVENT_IDX"}, {32, "VERSION_1"},
};

static void print_disk(const struct disk *disk)
{
    put_text("disk: slot ");
    put_decimal(disk->index);
    put_text(" at ");
    put_hex(disk->base);
    put_text(", virtio-mmio version ");
    put_decimal(disk->version);
    put_text(disk->version == 1 ? " (legacy)\ndisk: capacity " : " (modern)\ndisk: capacity ");
    put_decimal(disk->capacity);
    put_text(" sectors, block size ");
    put_decimal(disk->block_size);
    put_text(", queue size ");
    put_decimal(disk->queue_size);
    put_text("\ndisk: features offered ");
    put_hex(disk->offered);
    put_text(", accepted ");
    put_hex(disk->accepted);
    for (u32 i = 0; i < sizeof FEATURE_NAMES / sizeof *FEATURE_NAMES; i++) {
        if (disk->accepted >> FEATURE_NAMES[i].bit & 1) {
            put_text(" ");
            put_text(FEATURE_NAMES[i].name);
        }
    }
    put_text("\n");
}

static void must_succeed(const char *what, const struct slot *slot)
{
    u8 status = *(volatile const u8 *)&slot->status;
    if (status != BLK_OK)
        fail_at(what, slot->header.sector, BLK_OK, status);
}

static void print_id(struct work *work)
{
    u32 index = disk_request(&work->disk, BLK_GET_ID, 0, ID_SIZE);
    put_text("disk: id ");
    if (work->disk.slot[index].status == BLK_UNSUPP) {
        put_text("unsupported\n");
        return;
    }
    must_succeed("get id status", &work->disk.slot[index]);
    for (u32 i = 0; i < ID_SIZE; i++)
        work->id[i] = work->disk.buffer[index][i];
    work->id[ID_SIZE] = 0;  // twenty characters come without one
    put_text("\"");
    put_text((const char *)work->id);
    put_text("\"\n");
}

static void read_options(struct work *work)
{
    struct disk *disk = &work->disk;
    struct options *options = &work->options;
    if (disk->capacity * 512 < disk->block_size)
        fail("the disk is empty");
    u32 index = disk_request(disk, BLK_READ, 0, disk->block_size);
    must_succeed("read status", &disk->slot[index]);
    options_parse(options, (const char *)disk->buffer[index], 512);

    // Requests are whole blocks, and the area does not touch the block of sector 0.
    u64 unit = disk->block_size / 512;
    options->first = (options->first + unit - 1) / unit * unit;
    if (!options->first || options->first >= disk->capacity)
        fail_at("the area starts outside the disk", options->first, disk->capacity, options->first);
    u64 room = disk->capacity - options->first;
    if (options->sectors > room)
        fail_at("the area ends outside the disk", options->first, room, options->sectors);
    if (!options->sectors)
        options->sectors = room < 8192 ? room : 8192;
    options->sectors = options->sectors / unit * unit;
    disk_set_in_flight(disk, options->inflight > QUEUE_MAX ? QUEUE_MAX : (u32)options->inflight);
    options->inflight = disk->in_flight_max;
    disk->wait_for_interrupt_status = (u8)options->wait_for_interrupt;
    options_print(options);
}

static void fill_pattern(u8 *buffer, u64 sector, u32 sectors, u64 tag)
{
    u64 *word = (u64 *)buffer;
    for (; sectors--; sector++) {
        *word++ = sector;
        *word++ = tag;
        u64 x = pattern_start(sector, tag);
        for (u32 i = 2; i < SECTOR_WORDS; i++, x = pattern_next(x))
            *word++ = x;
    }
}

static void check_word(u64 sector, u32 i, u64 expected, u64 got)
{
    if (expected == got)
        return;
    put_text("mismatch: word ");
    put_decimal(i);
    put_text(" of the sector\n");
    fail_at("data", sector, expected, got);
}

static void check_pattern(const u8 *buffer, u64 sector, u32 sectors, u64 tag)
{
    const u64 *word = (const u64 *)buffer;
    for (; sectors--; sector++) {
        check_word(sector, 0, sector, *word++);
        check_word(sector, 1, tag, *word++);
        u64 x = pattern_start(sector, tag);
        for (u32 i = 2; i < SECTOR_WORDS; i++, x = pattern_next(x))
            check_word(sector, i, x, *word++);
    }
}

// What a buffer holds before a read: data that the device forgets to transfer must not look right by chance.
static void poison(u8 *buffer, u32 length)
{
    u64 *word = (u64 *)buffer;
    for (u32 i = 0; i < length / 8; i++)
        word[i] = 0xdeadbeefdeadbeefull;
}

struct pass {
    u32 type;    // BLK_READ or BLK_WRITE
    u32 verify;  // a read-only disk holds what it holds
    u64 tag;
};

static void finish_one(struct work *work, const struct pass *pass)
{
    struct disk *disk = &work->disk;
    u32 index = disk_wait(disk);
    struct slot *slot = &disk->slot[index];
    must_succeed(pass->type == BLK_WRITE ? "write status" : "read status", slot);
    if (pass->type == BLK_READ && pass->verify)
        check_pattern(disk->buffer[index], slot->header.sector, slot->length / 512, pass->tag);
}

static void start_one(struct work *work, const struct pass *pass, u64 sector, u32 sectors)
{
    struct disk *disk = &work->disk;
    if (!disk->free_count) {  // full: give all of it to the device at once, then take back whatever is complete
        disk_kick(disk);
        do
            finish_one(work, pass);
        while (disk->in_flight && disk->used[1] != disk->used_index);
    }
    u32 next = disk->free[disk->free_count - 1];
    if (pass->type == BLK_WRITE)
        fill_pattern(disk->buffer[next], sector, sectors, pass->tag);
    else
        poison(disk->buffer[next], sectors * 512);
    disk_submit(disk, pass->type, sector, sectors * 512);
}

// Sectors of the requests in this stretch of 64.
static u32 request_size(const struct work *work, u64 stretch, u64 salt)
{
    u32 size = (u32)work->options.size;
    if (!size) {
        u32 choice = (u32)(mix(stretch ^ salt) % 3);
        size = choice == 0 ? 1 : choice == 1 ? 8 : 64;
    }
    u32 least = work->disk.block_size / 512;
    return size < least ? least : size > work->disk.request_max ? work->disk.request_max : size;
}

// Cover every sector of the area once, in a scattered order and with requests of several sizes. An LCG of full period
// goes through all numbers below a power of two; those that are the first sector of a request start it.
static void run_pass(struct work *work, const struct pass *pass)
{
    const struct options *options = &work->options;
    struct disk *disk = &work->disk;
    u64 requests = disk->requests, bytes = disk->bytes;
    u64 salt = mix(pass->tag ^ (u64)pass->type << 31);  // reads go in another order, in other sizes, than writes
    u32 bits = 0;
    while (1ull << bits < options->sectors)
        bits++;
    u64 mask = (1ull << bits) - 1;
    u64 x = salt >> 7 & mask, increment = salt | 1;
    for (u64 step = 0; step <= mask; step++) {
        x = (x * 1664525 + increment) & mask;        // full period: multiplier 1 modulo 4, odd increment
        u64 offset = x ^ x >> ((bits + 1) / 2);      // its low bits alone would repeat too soon
        if (offset >= options->sectors)
            continue;
        u32 size = request_size(work, offset / 64, salt);
        if (offset % size)
            continue;
        u64 left = options->sectors - offset;
        start_one(work, pass, options->first + offset, left < size ? (u32)left : size);
    }
    disk_kick(disk);
    while (disk->in_flight)
        finish_one(work, pass);

    put_text("round ");
    put_decimal((u32)pass->tag);
    put_text(pass->type == BLK_WRITE ? ": wrote " : pass->verify ? ": verified " : ": read ");
    put_decimal(disk->bytes - bytes);
    put_text(" bytes in ");
    put_decimal(disk->requests - requests);
    put_text(" requests\n");
}

static void write_pass(struct work *work, u64 round)
{
    struct pass pass = {BLK_WRITE, 0, pattern_tag((u32)round, (u32)work->options.seed)};
    run_pass(work, &pass);
}

static void read_pass(struct work *work, u64 round, u32 verify)
{
    struct pass pass = {BLK_READ, verify, pattern_tag((u32)round, (u32)work->options.seed)};
    run_pass(work, &pass);
}

// The line is a promise to whoever kills the machine next: all of this round is on the disk. A device that does not
// offer FLUSH is write-through (5.2.5), so there the promise holds already.
static void flush(struct work *work, u64 round)
{
    if (work->disk.accepted & F_FLUSH) {
        u32 index = disk_request(&work->disk, BLK_FLUSH, 0, 0);
        must_succeed("flush status", &work->disk.slot[index]);
    }
    put_text("flushed ");
    put_decimal((u32)round);
    put_text("\n");
}

static void run(struct work *work)
{
    const struct options *options = &work->options;
    if (options->mode == MODE_VERIFY) {
        read_pass(work, options->rounds, 1);
        return;
    }
    if (work->disk.accepted & F_RO) {
        put_text("disk: read-only, nothing is written and nothing verified\n");
        read_pass(work, options->start, 0);
        return;
    }
    for (u64 i = 0; i < options->rounds || !options->rounds; i++) {
        u64 round = options->start + i;
        write_pass(work, round);
        if (options->mode == MODE_CHECK)
            read_pass(work, round, 1);
        flush(work, round);
    }
}

_Noreturn void guest_main(struct work *work)
{
    struct disk *disk = &work->disk;
    uart_start();
    put_text("e2kdisk guest: cpu " CPU_NAME "\n");
    if (!disk_find(disk))
        fail("no virtio disk found");
    disk_start(disk);
    print_disk(disk);
    print_id(work);
    read_options(work);
    run(work);
    put_text("total: ");
    put_decimal(disk->requests);
    put_text(" requests, ");
    put_decimal(disk->bytes);
    put_text(" bytes\nPASS\n");
    disk_stop(disk);
    power_off(0);
}
