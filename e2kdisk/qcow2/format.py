"""qcow2 in the table of formats: recognise an image, judge its header, open it with its backing file."""

from __future__ import annotations

import struct

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError, UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import read_header
from e2kdisk.qcow2.image import Qcow2Image
from e2kdisk.qcow2.mapping import DEFAULT_L2_CACHE_BYTES
from e2kdisk.qcow2.refcount import PASSED_ON
from e2kdisk.qcow2.snapshot_table import find_snapshot, read_snapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.block.open import Opener
    from e2kdisk.block.options import OpenOptions
    from e2kdisk.crypto.sector import SectorCipher

_MAGIC = struct.pack(">I", layout.MAGIC)
_EXTRAS = {
    "l2_cache_size": DEFAULT_L2_CACHE_BYTES,
    "overlap_check": "cached",
    "lazy_refcounts": None,
    "pass_discard": PASSED_ON,
    "snapshot": None,
    "key": None,
}


class Qcow2Format:
    """The entry in the table of formats."""

    name = "qcow2"

    def probe(self, head: bytes) -> bool:
        """Format.probe: magic, and a version that is not qcow (1)."""
        return head[:4] == _MAGIC and int.from_bytes(head[4:8], "big") >= 2

    async def open(self, file: Node, options: OpenOptions, opener: Opener) -> Node:
        """Format.open. Extras:

        l2_cache_size   bytes of L2 tables in memory
        overlap_check   none, constant, cached, all, or a set of kinds: which metadata is guarded against writes to it
        pass_discard    set of Freed: why clusters are freed whose space goes back to the host at once
        lazy_refcounts  True or False instead of what the image says
        key             bytes or text of the password of an encrypted image
        snapshot        id or name: show this snapshot, read-only (reference: qcow2_snapshot_load_tmp)
        """
        extras = options.take_extras(_EXTRAS)
        header = await read_header(file)
        writing = not file.read_only
        header.check_features(file.name, writing=writing)
        header.check_limits(file.name, file.size)
        if writing and header.incompatible_features & layout.INCOMPAT_DIRTY:
            header = await _repair(file)
        disk_header = header.with_()
        if extras["snapshot"] is not None:
            await _show_snapshot(file, header, extras["snapshot"])
        if extras["lazy_refcounts"] and header.version < 3:
            raise UsageError("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level")
        cipher = _make_cipher(file.name, header, extras["key"])
        backing = await opener.open_backing(options, header.backing_file or "", header.backing_format)
        try:
            return await Qcow2Image.open(
                file,
                header,
                backing,
                l2_cache_bytes=extras["l2_cache_size"],
                overlap_check=extras["overlap_check"],
                lazy_refcounts=extras["lazy_refcounts"],
                pass_discard=extras["pass_discard"],
                cipher=cipher,
                disk_header=disk_header,
            )
        except BaseException:
            if backing is not None:
                await backing.close()
            raise


def _make_cipher(filename: str, header: Header, key: str | bytes | None) -> SectorCipher | None:
    if header.crypt_method == 0:
        if key is not None:
            raise UsageError(f"{filename}: a key was given but the image is not encrypted")
        return None
    if key is None:
        raise UsageError(f"{filename}: the image is encrypted (AES); give its key")
    from e2kdisk.crypto.legacy import legacy_aes  # loads the cipher library, which few images need

    return legacy_aes(key.encode() if isinstance(key, str) else key)


async def _repair(file: Node) -> Header:
    """Bring the refcounts of an image that was not closed up to date, as its dirty bit asks for."""
    from e2kdisk.qcow2.check import check_file  # rarely needed, and as large as the rest of the format

    result = await check_file(file, "all")
    if result.corruptions:
        raise ImageError(
            file.name, "", f"the image was not closed, and {result.corruptions} errors could not be repaired"
        )
    return await read_header(file)


async def _show_snapshot(file: Node, header: Header, name: str) -> None:
    if not file.read_only:
        raise UsageError(f"{file.name}: a snapshot can only be opened read-only")
    snapshots, _ = await read_snapshots(file, header)
    snapshot = find_snapshot(file.name, snapshots, name)
    header.l1_table_offset = snapshot.l1_table_offset
    header.l1_size = snapshot.l1_size
    header.size = snapshot.disk_size
    # The snapshot's L1 table has a length of its own: judged like the active one (CVE-2014-0145).
    header.check_limits(file.name, file.size)


FORMAT = Qcow2Format()
