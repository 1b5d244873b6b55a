# ext2, to read: superblock, group descriptors, inodes, directories, block lists of all depths; blocks of 1, 2 or 4 KiB.
# Layout: Linux, Documentation/filesystems/ext2.rst. Who includes this has
#
#     volume_read(sector, count, buffer)        # sectors of the volume; does not return from an error
#     volume_damaged(text)                      # say that the file system cannot be right, and stop

    .include "memory.s"

    .equ SUPERBLOCK, 2                  # sector of the volume
    .equ INODE_COUNT, 0x00
    .equ BLOCK_COUNT, 0x04
    .equ FIRST_DATA_BLOCK, 0x14
    .equ LOG_BLOCK_SIZE, 0x18           # in 1 KiB
    .equ INODES_PER_GROUP, 0x28
    .equ MAGIC, 0x38
    .equ REVISION, 0x4c
    .equ INODE_SIZE, 0x58
    .equ INCOMPATIBLE, 0x60
    .equ EXT2_MAGIC, 0xef53
    .equ FILE_TYPES, 2                  # the only incompatible feature that changes nothing here

    .equ DESCRIPTOR_SHIFT, 5            # group descriptors have 32 bytes
    .equ INODE_TABLE, 0x08

    .equ MODE, 0x00
    .equ MODE_TYPE, 0xf000
    .equ MODE_DIRECTORY, 0x4000
    .equ MODE_FILE, 0x8000
    .equ SIZE_LOW, 0x04
    .equ SIZE_HIGH, 0x6c                # of a regular file
    .equ BLOCKS, 0x28                   # 12 direct, then single, double and triple indirect
    .equ DIRECT, 12
    .equ INODE_BYTES, 128
    .equ ROOT_INODE, 2

    .equ ENTRY_SIZE, 4                  # of a directory entry
    .equ ENTRY_NAME_LENGTH, 6
    .equ ENTRY_NAME, 8

    .equ BLOCK_ROOM_SHIFT, 12           # of the largest block

    .equ ext2_shift, EXT2_STATE         # a block has 1 << shift bytes
    .equ ext2_blocks, EXT2_STATE + 8
    .equ ext2_inodes, EXT2_STATE + 16
    .equ ext2_per_group, EXT2_STATE + 24
    .equ ext2_inode_size, EXT2_STATE + 32
    .equ ext2_groups, EXT2_STATE + 40   # the first block of group descriptors
    .equ ext2_indirect, EXT2_STATE + 48 # which blocks are in INDIRECT: three numbers

.routine ext2_open                      # ext2_open() -> 0, or a text that says why not
    .reg super r8, value r9, shift r10, zero r11, good p0, old p1, small p2, power p3
    { setwd wsz=FRAME; addd 0, SUPERBLOCK -> r16; addd 0, 2 -> r17; addd 0, SECTOR -> r18; disp ctpr1, volume_read }
    call ctpr1, wbs=ARGS
    { addd 0, SECTOR -> super; addd 0, 0 -> zero; return ctpr3 }
    { ldh [super + MAGIC] -> value; ldw [super + LOG_BLOCK_SIZE] -> shift; addd 0, "not an ext2 file system" -> r0 }
    { cmpesb value, EXT2_MAGIC -> good; cmpbesb shift, 2 -> small; addd shift, 10 -> shift }
    ct ctpr3 ? ~good
    { ldw [super + REVISION] -> value; ldw [super + INCOMPATIBLE] -> r12; addd 0, "ext2 blocks over 4 KiB" -> r0 }
    { ct ctpr3 ? ~small; cmpesb value, 0 -> old; andd r12, ~FILE_TYPES -> r12 }
    { addd 0, 0 -> r12 ? old; ldh [super + INODE_SIZE] -> value }       # the first revision has neither
    { cmpesb r12, 0 -> good; addd 0, INODE_BYTES -> value ? old; std shift -> [ext2_shift] }
    addd 0, "an ext2 with features that only ext3 or ext4 has" -> r0
    ct ctpr3 ? ~good
    { std value -> [ext2_inode_size]; ldw [super + BLOCK_COUNT] -> r12; ldw [super + INODE_COUNT] -> r13 }
    { std,2 r12 -> [ext2_blocks]; std,5 r13 -> [ext2_inodes] }
    { ldw [super + INODES_PER_GROUP] -> r12; ldw [super + FIRST_DATA_BLOCK] -> r13; shrd value, 7 -> r14 }
    { std r12 -> [ext2_per_group]; addd r13, 1 -> r13; cmpesb r12, 0 -> small; cmpedb r14, 0 -> old }
    { std r13 -> [ext2_groups]; addd 0, "a superblock that cannot be right" -> r0; subd value, 1 -> r12 }
    { andd r12, value -> r12; shrd value, shift -> r14; addd 0, 1 -> r15 }
    { cmpbedb r14, r15 -> good; cmpedb r12, 0 -> power; ct ctpr3 ? small }
    ct ctpr3 ? old
    ct ctpr3 ? ~power                   # an inode size of 2^n, from 128 bytes to a block
    ct ctpr3 ? ~good
    addd 0, ext2_indirect -> r12
    { std,2 zero -> [r12]; std,5 zero -> [r12 + 8] }
    std zero -> [r12 + 16]
    { addd 0, 0 -> r0; ct ctpr3 }

.routine ext2_block                     # ext2_block(number, buffer): read a block
    .reg number r0, shift r8, blocks r9, inside p0
    { setwd wsz=FRAME; ldd [ext2_blocks] -> blocks; ldd [ext2_shift] -> shift }
    { cmpbdb number, blocks -> inside; subd shift, 9 -> shift; addd 0, "a block beyond its end" -> r16 }
    disp ctpr1, volume_damaged
    call ctpr1, wbs=ARGS ? ~inside
    { shld number, shift -> r16; addd 0, 1 -> r17; addd r1, 0 -> r18; disp ctpr1, volume_read }
    shld r17, shift -> r17
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

.routine ext2_inode                     # ext2_inode(number): into INODE
    .reg number r0, per_group r8, group r9, index r10, shift r11, place r12, inside r13, low p0, high p1
    { setwd wsz=FRAME; ldd [ext2_inodes] -> index; ldd [ext2_per_group] -> per_group; subd number, 1 -> number }
    { cmpbdb number, index -> low; addd 0, "an inode that is not there" -> r16; disp ctpr1, volume_damaged }
    call ctpr1, wbs=ARGS ? ~low
    { udivd number, per_group -> group; ldd [ext2_shift] -> shift }
    { muld group, per_group -> index; shld group, DESCRIPTOR_SHIFT -> place; ldd [ext2_groups] -> r16 }
    { subd number, index -> index; shrd place, shift -> r17; disp ctpr1, ext2_block }
    { addd r16, r17 -> r16; addd 0, BLOCK -> r17; shld r17, shift -> inside }
    { call ctpr1, wbs=ARGS; subd place, inside -> inside }
    addd inside, BLOCK -> inside        # the group's descriptor
    { ldw [inside + INODE_TABLE] -> r16; ldd [ext2_inode_size] -> place }
    muld index, place -> place
    { shrd place, shift -> r17; disp ctpr1, ext2_block }
    { addd r16, r17 -> r16; addd 0, BLOCK -> r17; shld r17, shift -> inside }
    { call ctpr1, wbs=ARGS; subd place, inside -> inside }
    { addd 0, INODE -> r16; addd inside, BLOCK -> r17; addd 0, INODE_BYTES -> r18; disp ctpr1, copy }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3

# The block list: index 0 to 11 are in the inode. Then come indices that take one, two and three steps through blocks of
# numbers; with n = shift - 2, a block has 1 << n of them. Each depth keeps the block that it read last.

.routine ext2_map                       # ext2_map(index) -> the block of INODE's file, 0 for a hole
    .reg index r0, bits r8, depth r9, span r10, at r11, number r12, shift r13, cached r14, slot r15
    .reg near p0, reached p1, hole p2, here p3, over p4
    { setwd wsz=FRAME; cmpbdb index, DIRECT -> near; shld index, 2 -> at; ldd [ext2_shift] -> bits; return ctpr3 }
    addd at, INODE + BLOCKS -> at
    { ldw [at] -> r0 ? near; ct ctpr3 ? near }
    { subd index, DIRECT -> index; subd bits, 2 -> bits; addd 0, 1 -> depth }
    addd 0, 1 -> span
    { shld span, bits -> span }
.depth:                                 # how many steps?
    { cmpbdb index, span -> reached; cmpedb depth, 4 -> over; addd 0, "a file that is too long" -> r16 }
    disp ctpr1, volume_damaged
    call ctpr1, wbs=ARGS ? over
    branch .walk ? reached
    { subd index, span -> index; shld span, bits -> span; addd depth, 1 -> depth; branch .depth }
.walk:
    { shld depth, 2 -> at; addd 0, INODE + BLOCKS + 4 * (DIRECT - 1) -> r16 }
    ldw [at + r16] -> number
.step:
    { subd depth, 1 -> depth; cmpesb number, 0 -> hole; return ctpr3 }
    { addd 0, 0 -> r0 ? hole; ct ctpr3 ? hole }
    { shld depth, 3 -> slot; shld depth, BLOCK_ROOM_SHIFT -> at }
    { addd slot, ext2_indirect -> slot; addd at, INDIRECT -> at }
    { ldd [slot] -> cached; addd number, 0 -> r16; addd at, 0 -> r17; disp ctpr1, ext2_block }
    cmpedb cached, number -> here
    call ctpr1, wbs=ARGS ? ~here
    { std number -> [slot]; muld depth, bits -> shift; addd 0, 1 -> r16; cmpedb depth, 0 -> near }
    { shrd index, shift -> shift; shld r16, bits -> r16 }
    subd r16, 1 -> r16
    { andd shift, r16 -> shift; return ctpr3 }
    shld shift, 2 -> shift
    ldw [at + shift] -> number
    branch .step ? ~near
    { addd number, 0 -> r0; ct ctpr3 }

.routine ext2_read                      # ext2_read(buffer, first, count): blocks of INODE's file
    .reg buffer r0, first r1, left r2, shift r8, none p0, hole p1
    { setwd wsz=FRAME; ldd [ext2_shift] -> shift }
.next:
    { cmpedb left, 0 -> none; addd first, 0 -> r16; disp ctpr1, ext2_map; addd 0, 1 -> r9 }
    { branch .done ? none; shld r9, shift -> r9 }
    { call ctpr1, wbs=ARGS; addd first, 1 -> first; subd left, 1 -> left }
    { cmpesb r16, 0 -> hole; addd buffer, 0 -> r17; disp ctpr1, ext2_block }
    call ctpr1, wbs=ARGS ? ~hole
    { addd buffer, 0 -> r16; addd r9, 0 -> r17; disp ctpr1, clear }
    call ctpr1, wbs=ARGS ? hole
    { addd buffer, r9 -> buffer; branch .next }
.done:
    return ctpr3
    ct ctpr3

.routine ext2_count                     # ext2_count(bytes) -> blocks that hold them
    .reg bytes r0, shift r8, round r9
    { setwd wsz=FRAME; ldd [ext2_shift] -> shift; addd 0, 1 -> round; return ctpr3 }
    shld round, shift -> round
    { addd bytes, round -> bytes }
    subd bytes, 1 -> bytes
    { shrd bytes, shift -> r0; ct ctpr3 }

.routine ext2_find                      # ext2_find(name, wanted) -> inode of a name in the directory INODE, or 0
    .reg name r0, wanted r1, index r8, count r9, at r10, end r11, inode r12, size r13, name_length r14, shift r15
    .reg none p0, small p1, bad p2, hit p3, over p4
    { setwd wsz=FRAME; ldw [INODE + SIZE_LOW] -> count; ldd [ext2_shift] -> shift; addd 0, 0 -> index }
    shrd count, shift -> count
.block:
    { cmpbedb count, index -> none; addd 0, BLOCK -> r16; addd index, 0 -> r17; addd 0, 1 -> r18 }
    { branch .nothing ? none; addd 0, 1 -> end }
    disp ctpr1, ext2_read
    { call ctpr1, wbs=ARGS; addd index, 1 -> index; addd 0, BLOCK -> at; shld end, shift -> end }
    addd end, BLOCK -> end
.entry:
    { ldw [at] -> inode; ldh [at + ENTRY_SIZE] -> size; ldb [at + ENTRY_NAME_LENGTH] -> name_length }
    { addd at, size -> r16; addd name_length, ENTRY_NAME -> r17; cmpesb inode, 0 -> none
      cmpedb name_length, wanted -> hit }
    { cmpbdb end, r16 -> over; cmpbdb size, r17 -> bad; andd size, 3 -> r18 }
    { cmpedb r18, 0 -> small; addd 0, "a directory that cannot be right" -> r16; disp ctpr1, volume_damaged }
    call ctpr1, wbs=ARGS ? over
    disp ctpr1, volume_damaged
    call ctpr1, wbs=ARGS ? bad
    disp ctpr1, volume_damaged
    call ctpr1, wbs=ARGS ? ~small
    hit = hit & ~none
    branch .skip ? ~hit
    { addd at, ENTRY_NAME -> r16; addd name, 0 -> r17; addd wanted, 0 -> r18; disp ctpr1, matches }
    call ctpr1, wbs=ARGS
    { cmpedb r16, 1 -> hit; return ctpr3 }
    { addd inode, 0 -> r0 ? hit; ct ctpr3 ? hit }
.skip:
    { addd at, size -> at; addd at, size -> r16 }
    cmpbdb r16, end -> small
    branch .entry ? small
    branch .block
.nothing:
    return ctpr3
    { addd 0, 0 -> r0; ct ctpr3 }

.routine ext2_lookup                    # ext2_lookup(path) -> 1 with its inode in INODE, or 0
    .reg path r0, end r8, letter r9, mode r10, found p0, none p1, slash p2, finished p3, go_on p4
    { setwd wsz=FRAME; addd 0, ROOT_INODE -> r16; disp ctpr1, ext2_inode }
    call ctpr1, wbs=ARGS
.component:
    { ldb [path] -> letter; return ctpr3 }
    { cmpesb letter, '/' -> slash; cmpesb letter, 0 -> finished; addd path, 0 -> end }
    { addd path, 1 -> path ? slash; branch .component ? slash }
    { addd 0, 1 -> r0 ? finished; ct ctpr3 ? finished }
.letter:
    { addd end, 1 -> end; ldb [end + 1] -> letter }
    { cmpesb letter, '/' -> slash; cmpesb letter, 0 -> finished }
    go_on = ~slash & ~finished
    branch .letter ? go_on
    { ldh [INODE + MODE] -> mode; addd path, 0 -> r16; subd end, path -> r17; return ctpr3 }
    { andd mode, MODE_TYPE -> mode; addd end, 0 -> r11 }
    cmpedb mode, MODE_DIRECTORY -> found
    { addd 0, 0 -> r0 ? ~found; ct ctpr3 ? ~found }
    disp ctpr1, ext2_find
    call ctpr1, wbs=ARGS
    { cmpedb r16, 0 -> none; return ctpr3; addd r11, 0 -> path }
    { addd 0, 0 -> r0 ? none; ct ctpr3 ? none }
    disp ctpr1, ext2_inode
    call ctpr1, wbs=ARGS
    branch .component
