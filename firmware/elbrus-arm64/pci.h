// PCI configuration space through its memory window; all functions are on bus 0.
#ifndef PCI_H
#define PCI_H
#include "board.h"

enum { PCI_COMMAND = 0x04, PCI_CLASS = 0x08, PCI_BAR0 = 0x10, PCI_CAPABILITIES = 0x34 };
enum { PCI_IO = 1, PCI_MEMORY = 2, PCI_MASTER = 4 };

u32 config_read(u32 devfn, u32 offset, u32 size);
void config_write32(u32 devfn, u32 offset, u32 value);
void config_write16(u32 devfn, u32 offset, u16 value);

// The first function whose register, under a mask, has a value; -1 if there is none.
int pci_find(u32 offset, u32 mask, u32 value);

char uart_get(void);

#endif
