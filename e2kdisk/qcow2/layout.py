"""The numbers of the format: magic, flags, masks, extension types and the limits that are checked on open.

Source: the qcow2 specification (docs/interop/qcow2.txt of QEMU) unless said otherwise; names in parentheses
are those of the reference header.
"""

from __future__ import annotations

MAGIC = 0x514649FB  # "QFI\xfb" (QCOW_MAGIC)

V2_HEADER_BYTES = 72
V3_HEADER_BYTES = 104
"""The shortest version 3 header; what follows is described by header_length."""

MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
DEFAULT_CLUSTER_BYTES = 65536

SECTOR_BYTES = 512

# -- table entries ---------------------------------------------------------------------------------

COPIED = 1 << 63
"""The cluster's refcount is exactly one: it may be written in place (QCOW_OFLAG_COPIED)."""
COMPRESSED = 1 << 62
"""The rest of the entry is a compressed cluster descriptor; never together with COPIED (QCOW_OFLAG_COMPRESSED)."""
ZERO = 1 << 0
"""The cluster reads as zeros, version 3 only (QCOW_OFLAG_ZERO)."""

OFFSET_MASK = 0x00FFFFFFFFFFFE00
"""Host offset in L1 and L2 entries, bits 9-55 (L1E_OFFSET_MASK, L2E_OFFSET_MASK)."""
REFTABLE_OFFSET_MASK = 0xFFFFFFFFFFFFFE00
"""Host offset of a refcount block (REFT_OFFSET_MASK)."""
MAX_HOST_OFFSET = 1 << 56
"""No byte of an image lies at or beyond this file offset: entries have no bits for it."""

L1_RESERVED = 0x7F000000000001FF
"""Bits of an L1 entry that must be zero."""
L2_RESERVED = 0x3F000000000001FE
"""Bits of a standard L2 entry that must be zero."""

# -- feature bits ----------------------------------------------------------------------------------

INCOMPAT_DIRTY = 1 << 0
INCOMPAT_CORRUPT = 1 << 1
INCOMPAT_BROKEN = INCOMPAT_DIRTY | INCOMPAT_CORRUPT
"""What a repair clears."""
INCOMPAT_DATA_FILE = 1 << 2
INCOMPAT_COMPRESSION = 1 << 3
INCOMPAT_EXTENDED_L2 = 1 << 4

COMPAT_LAZY_REFCOUNTS = 1 << 0

AUTOCLEAR_BITMAPS = 1 << 0
AUTOCLEAR_DATA_FILE_RAW = 1 << 1

# -- header extensions -----------------------------------------------------------------------------

EXT_END = 0x00000000
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURE_NAMES = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_CRYPTO = 0x0537BE77
EXT_DATA_FILE = 0x44415441

# -- limits: an image beyond one of them is refused before anything is allocated --------------------

MAX_L1_BYTES = 32 << 20  # CVE-2014-0144, CVE-2014-0143
MAX_REFTABLE_BYTES = 8 << 20  # CVE-2014-0144
MAX_SNAPSHOTS = 65536  # CVE-2014-0144
MAX_BACKING_NAME_BYTES = 1023
MAX_REFCOUNT_ORDER = 6
MAX_DISK_BYTES = (1 << 63) - 512
"""A disk's size is a signed 64-bit number of bytes to everyone who uses it."""
