# virtio: a virtio-blk disk on PCI (VIRTIO 1.2, 4.1 and 5.2): the modern interface, one split ring, polled. Finds the
# function, follows its capabilities to the registers and runs the exercise, one request at a time.

    .org 0x1_0000_0000
    .include "exercise.s"
    .include "pci.s"

    .equ ID_MODERN, 0x1042_1af4
    .equ ID_TRANSITIONAL, 0x1001_1af4
    .equ VENDOR_CAPABILITY, 0x09
    .equ CAPABILITY_NEXT, 1
    .equ CAPABILITY_TYPE, 3             # 1 common, 2 notify, 3 ISR, 4 device
    .equ CAPABILITY_BAR, 4
    .equ CAPABILITY_OFFSET, 8
    .equ CAPABILITY_MULTIPLIER, 16      # of notify

    .equ DEVICE_FEATURE_SELECT, 0x00    # common configuration
    .equ DEVICE_FEATURE, 0x04
    .equ DRIVER_FEATURE_SELECT, 0x08
    .equ DRIVER_FEATURE, 0x0c
    .equ DEVICE_STATUS, 0x14
    .equ QUEUE_SELECT, 0x16
    .equ QUEUE_SIZE, 0x18
    .equ QUEUE_ENABLE, 0x1c
    .equ QUEUE_NOTIFY_OFFSET, 0x1e
    .equ QUEUE_DESCRIPTORS, 0x20
    .equ QUEUE_DRIVER, 0x28
    .equ QUEUE_DEVICE, 0x30

    .equ DRIVER, 3                      # ACKNOWLEDGE, DRIVER
    .equ FEATURES_OK, DRIVER | 8
    .equ DRIVER_OK, FEATURES_OK | 4
    .equ FEATURE_FLUSH, 1 << 9
    .equ FEATURE_VERSION_1, 1           # bit 32

    .equ REQUEST_IN, 0
    .equ REQUEST_OUT, 1
    .equ REQUEST_FLUSH, 4

    .equ ENTRIES, 8
    .equ DESCRIPTORS, RING              # 16 bytes each: address, length, flags << 32, next << 48
    .equ AVAILABLE, RING + 0x100        # flags, idx, ring
    .equ USED, RING + 0x200
    .equ HEADER, RING + 0x300           # type, 0, sector
    .equ RESULT, RING + 0x310           # the device's last byte
    .equ RING_BYTES, 0x400
    .equ NEXT, 1 << 32
    .equ DEVICE_WRITES, 2 << 32
    .equ NO_INTERRUPT, 1

    .equ area_common, DISK_STATE + 8     # by type: addresses of the register areas
    .equ area_notify, DISK_STATE + 16
    .equ area_device, DISK_STATE + 32
    .equ multiplier, DISK_STATE + 48
    .equ notify, DISK_STATE + 56         # where queue 0 is told of new requests
    .equ can_flush, DISK_STATE + 64

program: .asciz "virtio"

.routine disk_open
    .reg absent p0
    { setwd wsz=FRAME; addd 0, ID -> r16; addd 0, -1 -> r17; addd 0, ID_MODERN -> r18; disp ctpr1, pci_find }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> absent; addd r16, 0 -> r8; disp ctpr1, pci_find }
    { addd 0, ID -> r16; addd 0, -1 -> r17; addd 0, ID_TRANSITIONAL -> r18 }
    call ctpr1, wbs=ARGS ? absent
    addd r16, 0 -> r8 ? absent
    { cmpedb r8, 0 -> absent; addd 0, "FAIL: no virtio-blk on the PCI bus" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? absent
    { addd r8, 0 -> r16; disp ctpr1, pci_assign }
    call ctpr1, wbs=ARGS
    { addd r8, 0 -> r16; disp ctpr1, find_areas }
    call ctpr1, wbs=ARGS
    disp ctpr1, negotiate
    call ctpr1, wbs=ARGS
    disp ctpr1, set_up_ring
    call ctpr1, wbs=ARGS
    ldd [area_device] -> r8
    { ldw [r8] -> r0; ldw [r8 + 4] -> r9 }      # capacity; 64 bits go in two halves
    { shl_ord r9, 32, r0 -> r0; return ctpr3 }
    ct ctpr3

.routine find_areas                     # find_areas(function): the addresses of its register areas
    .reg function r0, at r8, id r9, type r10, bar r11, offset r12, factor r13, end p0, vendor p1, known p2, zero p3
    { setwd wsz=FRAME; ldb [function + CAPABILITIES] -> at; addd 0, DISK_STATE -> r16
      addd 0, 72 -> r17; disp ctpr1, clear }
    call ctpr1, wbs=ARGS
.next:
    { cmpedb at, 0 -> end; addd function, at -> at }
    branch .check ? end
    { ldb [at] -> id; ldb [at + CAPABILITY_TYPE] -> type; ldb [at + CAPABILITY_BAR] -> bar }
    { cmpesb id, VENDOR_CAPABILITY -> vendor; cmpbesb type, 4 -> known; shld bar, 2 -> bar
      ldb [at + CAPABILITY_NEXT] -> id }
    { known = known & vendor; addd bar, function -> bar; shld type, 3 -> type }
    branch .skip ? ~known
    { ldw [bar + BARS] -> bar; ldw [at + CAPABILITY_OFFSET] -> offset; addd type, DISK_STATE -> type }
    andd bar, ~15 -> bar
    { addd bar, offset -> bar; ldd [type] -> r14 }
    cmpedb r14, 0 -> zero               # the first of each type counts
    { std bar -> [type] ? zero; subd type, area_notify -> type }
    cmpedb type, 0 -> known
    ldw [at + CAPABILITY_MULTIPLIER] -> factor ? known
    std factor -> [multiplier] ? known
.skip:
    { addd id, 0 -> at; branch .next }
.check:
    { ldd [area_common] -> r8; ldd [area_notify] -> r9 }
    { cmpedb r8, 0 -> zero; cmpedb r9, 0 -> end; disp ctpr1, fail }
    addd 0, "FAIL: virtio: no capabilities of the modern interface" -> r16
    call ctpr1, wbs=ARGS ? zero
    disp ctpr1, fail
    call ctpr1, wbs=ARGS ? end
    return ctpr3
    ct ctpr3

.routine negotiate                      # negotiate(): reset, version 1, flush if there is one
    .reg common r8, value r9, status r10, flush r11, one r12, zero r13, none p0, busy p1
    { setwd wsz=FRAME; ldd [area_common] -> common; addd 0, 0 -> zero; addd 0, 1 -> one }
    stb zero -> [common + DEVICE_STATUS]
.reset:
    ldb [common + DEVICE_STATUS] -> status
    { cmpesb status, 0 -> busy; addd 0, DRIVER -> status }
    branch .reset ? ~busy
    stb one -> [common + DEVICE_STATUS]
    stb status -> [common + DEVICE_STATUS]
    stw one -> [common + DEVICE_FEATURE_SELECT]
    ldw [common + DEVICE_FEATURE] -> value
    stw zero -> [common + DEVICE_FEATURE_SELECT]
    ldw [common + DEVICE_FEATURE] -> flush
    { cmpandesb value, FEATURE_VERSION_1 -> none; andd flush, FEATURE_FLUSH -> flush }
    { addd 0, "FAIL: virtio: the device has no version 1" -> r16; disp ctpr1, fail; std flush -> [can_flush] }
    call ctpr1, wbs=ARGS ? none
    stw zero -> [common + DRIVER_FEATURE_SELECT]
    stw flush -> [common + DRIVER_FEATURE]
    stw one -> [common + DRIVER_FEATURE_SELECT]
    stw one -> [common + DRIVER_FEATURE]
    addd 0, FEATURES_OK -> status
    stb status -> [common + DEVICE_STATUS]
    ldb [common + DEVICE_STATUS] -> value
    { cmpesb value, status -> none; addd 0, "FAIL: virtio: the device refuses the features" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? ~none
    return ctpr3
    ct ctpr3

.routine set_up_ring                    # set_up_ring(): queue 0, then DRIVER_OK
    .reg common r8, value r9, zero r10, one r11, status r12, offset r13, few p0
    { setwd wsz=FRAME; addd 0, RING -> r16; addd 0, RING_BYTES -> r17; disp ctpr1, clear }
    call ctpr1, wbs=ARGS
    { ldd [area_common] -> common; addd 0, 0 -> zero; addd 0, 1 -> one }
    sth zero -> [common + QUEUE_SELECT]
    ldh [common + QUEUE_SIZE] -> value
    { cmpbdb value, ENTRIES -> few; addd 0, "FAIL: virtio: the queue is too short" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS ? few
    addd 0, ENTRIES -> value
    sth value -> [common + QUEUE_SIZE]
    addd 0, DESCRIPTORS -> value        # addresses go in two halves; ours have none above
    { stw,2 value -> [common + QUEUE_DESCRIPTORS]; stw,5 zero -> [common + QUEUE_DESCRIPTORS + 4] }
    addd 0, AVAILABLE -> value
    { stw,2 value -> [common + QUEUE_DRIVER]; stw,5 zero -> [common + QUEUE_DRIVER + 4] }
    { sth one -> [value]; addd 0, USED -> value }       # NO_INTERRUPT
    { stw,2 value -> [common + QUEUE_DEVICE]; stw,5 zero -> [common + QUEUE_DEVICE + 4] }
    ldh [common + QUEUE_NOTIFY_OFFSET] -> offset
    { ldd [multiplier] -> value; ldd [area_notify] -> status }
    { muld offset, value -> offset; sth one -> [common + QUEUE_ENABLE] }
    { addd status, offset -> offset; addd 0, DRIVER_OK -> status }
    { std offset -> [notify]; return ctpr3 }
    { stb status -> [common + DEVICE_STATUS]; ct ctpr3 }

.routine request                        # request(type, sector, address, flags << 32 | bytes) -> result; bytes 0: none
    .reg type r0, sector r1, address r2, rest r3, at r8, index r9, value r10, zero r11, seen r12, empty p0, done p1
    { setwd wsz=FRAME; addd 0, HEADER -> at; addd 0, DESCRIPTORS -> r13; cmpedb rest, 0 -> empty; addd 0, 0 -> zero }
    { std,2 type -> [at]; std,5 sector -> [at + 8]; addd 0, NEXT | 16 | 1 << 48 -> value }
    { addd 0, NEXT | 16 | 2 << 48 -> value ? empty; ord rest, NEXT -> rest }
    { std,2 at -> [r13]; std,5 value -> [r13 + 8]; addd 0, 2 << 48 -> value }
    { ord rest, value -> rest; addd 0, DEVICE_WRITES | 1 -> value; addd 0, RESULT -> at }
    { std,2 address -> [r13 + 16]; std,5 rest -> [r13 + 24] }
    { std,2 at -> [r13 + 32]; std,5 value -> [r13 + 40]; addd 0, AVAILABLE -> r14 }
    ldh [r14 + 2] -> index
    { andd index, ENTRIES - 1 -> value; addd index, 1 -> index }
    { shld value, 1 -> value; andd index, 0xffff -> index }
    addd r14, value -> value
    sth zero -> [value + 4]             # the chain begins at descriptor 0
    { sth index -> [r14 + 2]; ldd [notify] -> value }
    { sth zero -> [value]; addd 0, USED -> r14; return ctpr3 }
.poll:
    ldh [r14 + 2] -> seen
    cmpesb seen, index -> done
    branch .poll ? ~done
    { ldb [at] -> r0; ct ctpr3 }

.routine transfer                       # transfer(type, lba, buffer, flags << 32 | bytes, text for an error)
    .reg lba r1, text r4, good p0
    { setwd wsz=FRAME; addd r0, 0 -> r16; addd lba, 0 -> r17; addd r2, 0 -> r18; addd r3, 0 -> r19
      disp ctpr1, request }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> good; addd r16, 0 -> r8; addd text, 0 -> r16; addd lba, 0 -> r17; disp ctpr1, print_with }
    branch .done ? good
    call ctpr1, wbs=ARGS
    { addd 0, ": status " -> r16; addd r8, 0 -> r17; disp ctpr1, print_with }
    call ctpr1, wbs=ARGS
    { addd 0, "" -> r16; disp ctpr1, fail }
    call ctpr1, wbs=ARGS
.done:
    return ctpr3
    ct ctpr3

.routine disk_read
    { setwd wsz=FRAME; addd 0, REQUEST_IN -> r16; addd r0, 0 -> r17; addd r2, 0 -> r18; shld r1, 9 -> r19 }
    { addd 0, DEVICE_WRITES -> r8; addd 0, "\nFAIL: read of sector " -> r20 }
    { ord r19, r8 -> r19; disp ctpr1, transfer }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine disk_write
    { setwd wsz=FRAME; addd 0, REQUEST_OUT -> r16; addd r0, 0 -> r17; addd r2, 0 -> r18; shld r1, 9 -> r19 }
    { addd 0, "\nFAIL: write of sector " -> r20; disp ctpr1, transfer }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine disk_flush                     # nothing to do where there is no cache
    .reg none p0
    { setwd wsz=FRAME; ldd [can_flush] -> r8; addd 0, 0 -> r17; addd 0, 0 -> r18; addd 0, 0 -> r19 }
    { cmpedb r8, 0 -> none; addd 0, REQUEST_FLUSH -> r16; addd 0, "\nFAIL: flush of disk " -> r20
      disp ctpr1, transfer }
    call ctpr1, wbs=ARGS ? ~none
    return ctpr3
    ct ctpr3
