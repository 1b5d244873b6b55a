// Reads the first MiB of a disk in several ways, as lines on the serial port tell:
//
//   pio 64       64 MiB through the data port of the IDE controller
//   dma 64       by its bus master, polled
//   irq 64       the same, sleeping until the interrupt
//   virtio 64    by virtio-blk, polled
//   clear 64     overwrite what was read
//   sum 64       print a checksum of what was read
//   off          power off
//
// Each answer is a line; "> " asks for the next one.
#include "console.h"
#include "pci.h"
#include "reader.h"

enum { LINE = 64 };

static void get_line(char *line)
{
    u32 length = 0;
    for (char c; (c = uart_get()) != '\n' && c != '\r';)
        if (length < LINE - 1)
            line[length++] = c;
    line[length] = 0;
}

// The rest of the line after this word, or none.
static const char *after(const char *line, const char *word)
{
    while (*word)
        if (*line++ != *word++)
            return 0;
    return line;
}

static u64 number(const char *text)
{
    u64 value = 0;
    for (; *text == ' '; text++)
        ;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (u64)(*text - '0');
    return value;
}

static void clear(u64 bytes)
{
    for (u64 at = 0; at < bytes; at += 8)
        *(volatile u64 *)(BUFFER_BASE + at) = ~at;
}

// Words times odd numbers: every bit and every place counts.
static u64 sum(u64 bytes)
{
    u64 result = 0;
    for (u64 at = 0; at < bytes; at += 8)
        result = result * 0x100000001b3 + *(const u64 *)(BUFFER_BASE + at);
    return result;
}

static void obey(struct work *work, const char *line)
{
    const char *rest;
    if (after(line, "off"))
        power_off(0);
    for (rest = line; *rest && *rest != ' '; rest++)
        ;
    u64 bytes = number(rest) * MIB;
    if (!bytes || bytes > BUFFER_SIZE)
        put_text("how much? ");
    else if (after(line, "pio"))
        read_pio(BUFFER_BASE, bytes);
    else if (after(line, "dma"))
        read_dma(work, BUFFER_BASE, bytes, 0);
    else if (after(line, "irq"))
        read_dma(work, BUFFER_BASE, bytes, 1);
    else if (after(line, "virtio"))
        read_virtio(work, BUFFER_BASE, bytes);
    else if (after(line, "clear"))
        clear(bytes);
    else if (after(line, "sum"))
        put_hex(sum(bytes));
    else
        put_text("what? ");
    put_text(" done\n");
}

_Noreturn void reader_main(struct work *work)
{
    char line[LINE];
    uart_start();
    put_text("e2kdisk reader: cpu " CPU_NAME "\n");
    for (;;) {
        put_text("> ");
        get_line(line);
        obey(work, line);
    }
}
