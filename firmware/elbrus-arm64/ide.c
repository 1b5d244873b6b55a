// IDE in legacy mode: the primary channel at 0x1f0, the bus master at BAR4 (ATA8-ACS, SFF-8038i).
#include "console.h"
#include "pci.h"
#include "reader.h"

enum { DATA = 0x1f0, COUNT = 0x1f2, LBA_LOW = 0x1f3, LBA_MID, LBA_HIGH, DEVICE, STATUS, CONTROL = 0x3f6 };
enum { ERR = 0x01, DRQ = 0x08, DF = 0x20, BSY = 0x80 };
enum { READ_SECTORS_EXT = 0x24, READ_DMA_EXT = 0x25 };
enum { USE_LBA = 0x40, NIEN = 2 };
enum { MASTER_PORT = 0xc000, MASTER_COMMAND = MASTER_PORT, MASTER_STATUS = MASTER_PORT + 2, MASTER_TABLE = MASTER_PORT + 4 };
enum { START = 1, TO_MEMORY = 8, MASTER_ERROR = 2, MASTER_INTERRUPT = 4, LAST = 0x8000 };
enum { CLASS_IDE = 0x0101, LEGACY_PIN = 14, VECTOR = 0x41, LEVEL = 0x8000 };
enum { CHUNK = 32 * MIB };  // one command: 65536 sectors, 512 entries of 64 KiB

static u8 in8(u32 port)
{
    return *(volatile u8 *)(uptr)(PORTS_BASE + port);
}

static void out8(u32 port, u32 value)
{
    *(volatile u8 *)(uptr)(PORTS_BASE + port) = (u8)value;
}

static u32 start_controller(void)
{
    int devfn = pci_find(PCI_CLASS, 0xffff0000, (u32)CLASS_IDE << 16);
    if (devfn < 0)
        fail("no IDE controller");
    config_write32((u32)devfn, PCI_BAR0 + 4 * 4, MASTER_PORT);
    config_write16((u32)devfn, PCI_COMMAND, PCI_IO | PCI_MASTER);
    return (u32)devfn;
}

static u8 wait_ready(void)
{
    u8 status;
    while ((status = in8(STATUS)) & BSY)
        ;
    if (status & (ERR | DF))
        fail_at("IDE status", 0, 0, status);
    return status;
}

// 48-bit registers take the upper half first.
static void command(u8 code, u64 sector, u32 sectors)
{
    wait_ready();
    out8(DEVICE, USE_LBA);
    for (int half = 1; half >= 0; half--) {
        out8(COUNT, sectors >> 8 * half);
        for (u32 i = 0; i < 3; i++)
            out8(LBA_LOW + i, (u32)(sector >> (8 * i + 24 * (u32)half)));
    }
    out8(STATUS, code);
}

void read_pio(u64 to, u64 bytes)
{
    volatile u32 *data = (volatile u32 *)(uptr)(PORTS_BASE + DATA);
    u32 *word = (u32 *)to;
    start_controller();
    out8(CONTROL, NIEN);
    for (u64 sector = 0; sector < bytes / SECTOR;) {
        u64 left = bytes / SECTOR - sector;
        u32 sectors = left < 65536 ? (u32)left : 65536;
        command(READ_SECTORS_EXT, sector, sectors);  // 65536 is written as 0
        for (sector += sectors; sectors; sectors--) {
            if (!(wait_ready() & DRQ))
                fail("IDE: no data");
            for (u32 i = 0; i < SECTOR / 4; i++)
                *word++ = *data;
        }
    }
}

static void ioapic_set(u32 index, u32 value)
{
    *(volatile u32 *)(uptr)IOAPIC_BASE = index;
    *(volatile u32 *)(uptr)(IOAPIC_BASE + 0x10) = value;
}

static volatile u32 *lapic(u32 offset)
{
    return (volatile u32 *)(uptr)(LAPIC_BASE + offset);
}

// Sleep until the drive's interrupt, which must be ours; it is over once the drive has been asked for its status.
static void sleep_until_done(void)
{
    for (;;) {
        wait_for_interrupt();
        u32 vector = *lapic(0xff0);
        if (vector == VECTOR)
            break;
        if (vector != 0xff)
            fail_at("vector", 0, VECTOR, vector);
    }
    wait_ready();
    *lapic(0xb0) = 0;
}

void read_dma(struct work *work, u64 to, u64 bytes, int interrupts)
{
    start_controller();
    out8(CONTROL, interrupts ? 0 : NIEN);
    if (interrupts) {
        *lapic(0xf0) = 0x1ff;  // on; 0xff if there is none to serve
        ioapic_set(0x11 + 2 * LEGACY_PIN, 0);
        ioapic_set(0x10 + 2 * LEGACY_PIN, VECTOR | LEVEL);
    }
    for (u64 done = 0; done < bytes; done += CHUNK) {
        u64 now = bytes - done < CHUNK ? bytes - done : CHUNK;
        u32 entries = (u32)((now + 0xffff) / 0x10000);
        for (u32 i = 0; i < entries; i++)
            work->prd[i] = (struct prd){(u32)(to + done) + 0x10000 * i, 0, i + 1 == entries ? LAST : 0};
        work->prd[entries - 1].bytes = (u16)now;
        memory_barrier();
        *(volatile u32 *)(uptr)(PORTS_BASE + MASTER_TABLE) = (u32)(uptr)work->prd;
        out8(MASTER_COMMAND, TO_MEMORY);
        out8(MASTER_STATUS, MASTER_ERROR | MASTER_INTERRUPT);
        command(READ_DMA_EXT, done / SECTOR, (u32)(now / SECTOR));
        out8(MASTER_COMMAND, TO_MEMORY | START);
        if (interrupts)
            sleep_until_done();
        else
            wait_ready();
        out8(MASTER_COMMAND, 0);
        if (in8(MASTER_STATUS) & MASTER_ERROR)
            fail("bus master error");
    }
    memory_barrier();
}
