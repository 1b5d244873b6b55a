#include "pci.h"

enum { FUNCTIONS = 32 * 8 };

static uptr place(u32 devfn, u32 offset)
{
    return CONFIG_BASE + ((uptr)devfn << 12) + offset;
}

u32 config_read(u32 devfn, u32 offset, u32 size)
{
    switch (size) {
    case 1:
        return *(volatile u8 *)place(devfn, offset);
    case 2:
        return *(volatile u16 *)place(devfn, offset);
    default:
        return *(volatile u32 *)place(devfn, offset);
    }
}

void config_write32(u32 devfn, u32 offset, u32 value)
{
    *(volatile u32 *)place(devfn, offset) = value;
}

void config_write16(u32 devfn, u32 offset, u16 value)
{
    *(volatile u16 *)place(devfn, offset) = value;
}

int pci_find(u32 offset, u32 mask, u32 value)
{
    for (u32 devfn = 0; devfn < FUNCTIONS; devfn++)
        if (config_read(devfn, 0, 4) != 0xffffffff && (config_read(devfn, offset, 4) & mask) == value)
            return (int)devfn;
    return -1;
}
