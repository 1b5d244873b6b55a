# PCI: find a function on bus 0 through the ECAM window, give it addresses, switch it on.

    .include "console.s"

    .equ PORTS, 0x1_0100_0000           # I/O port 0; loads and stores with MAS "io"
    .equ CONFIG, 0x2_0000_0000          # devfn << 12 | register
    .equ CONFIG_END, CONFIG + (256 << 12)
    .equ ID, 0x00                       # device << 16 | vendor
    .equ COMMAND, 0x04
    .equ CLASS, 0x08                    # class << 16 | prog-if << 8 | revision
    .equ BARS, 0x10
    .equ BARS_END, 0x28
    .equ CAPABILITIES, 0x34
    .equ IO_MEMORY_MASTER, 7            # in COMMAND

    .equ ID_POWER, 0x800e_1fff          # the power controller of an IOHUB-2
    .equ POWER_CONTROL, 0x4c            # its PM1_CNT (ACPI 4.8.3.2.1)
    .equ POWER_OFF, 1 << 13 | 5 << 10   # enter state S5

    .align 64
memory_next: .dword 0x9000_0000         # where the next memory BAR goes; PCI and CPU see it at the same address
port_next: .dword 0x2000
    .align 64

.routine pci_find                       # pci_find(register, mask, value) -> configuration address of the first, or 0
    .reg register r0, mask r1, value r2, at r8, found r9, hit p0, over p1
    { setwd wsz=FRAME; addd 0, CONFIG -> at; addd 0, 0x1000 -> r10 }
.next:
    ldw [at + register] -> found
    ands found, mask -> found
    { cmpesb found, value -> hit; addd at, r10 -> at; return ctpr3 }
    { subd at, r10 -> r0 ? hit; ct ctpr3 ? hit }
    cmpbdb at, CONFIG_END -> over
    branch .next ? over
    { addd 0, 0 -> r0; ct ctpr3 }

# A BAR tells its size by the bits that stay zero when all ones are written; memory BARs may be 64 bits wide.

.routine pci_assign                     # pci_assign(function): an address for each BAR; I/O, memory and DMA on
    .reg function r0, bar r8, kind r9, size r10, mask r11, place r12, ones r13, zero r14, next r15
    .reg io p0, wide p1, absent p2, more p3
    { setwd wsz=FRAME; addd function, BARS -> bar; addd 0, -1 -> ones; addd 0, 0 -> zero }
    stw zero -> [function + COMMAND]    # nothing answers while BARs hold all ones
.next:
    stw ones -> [bar]
    ldw [bar] -> kind
    { cmpesb kind, 0 -> absent; andd kind, 1 -> r16; andd kind, 4 -> r17 }
    { cmpedb r16, 1 -> io; cmpedb r17, 4 -> wide; addd bar, 4 -> bar ? absent }
    branch .skipped ? absent
    wide = wide & ~io
    { addd 0, port_next -> next ? io; addd 0, memory_next -> next ? ~io }
    { andd kind, ~3 -> mask ? io; andd kind, ~15 -> mask ? ~io }
    ord mask, 0xffff_0000 -> mask ? io  # ports have 16 bits, and not every device has the others
    sxt 2, mask -> mask                 # size = -mask
    { subd 0, mask -> size; ldd [next] -> place }
    addd place, size -> place           # rounded up to the size
    subd place, 1 -> place
    andd place, mask -> place
    { stw place -> [bar]; addd place, size -> size; addd bar, 4 -> bar }
    { std size -> [next]; branch .skipped ? ~wide }
    stw zero -> [bar]                   # upper half
    addd bar, 4 -> bar
.skipped:
    addd function, BARS_END -> r16
    cmpbdb bar, r16 -> more
    branch .next ? more
    addd 0, IO_MEMORY_MASTER -> r16
    { sth r16 -> [function + COMMAND]; return ctpr3 }
    ct ctpr3

.routine power_off                      # switch the machine off, or stop if it has nothing to do that with
    .reg none p0
    { setwd wsz=FRAME; addd 0, ID -> r16; addd 0, -1 -> r17; addd 0, ID_POWER -> r18; disp ctpr1, pci_find }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> none; addd 0, POWER_OFF -> r8 }
    stw r8 -> [r16 + POWER_CONTROL] ? ~none
    branch stop
