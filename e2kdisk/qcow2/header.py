"""The image header: parse with every limit checked before anything is allocated, and pack again."""

from __future__ import annotations

import struct

from e2kdisk.errors import ImageError, UnsupportedFeature
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.extensions import (
    FEATURES,
    Extension,
    feature_name_table,
    pack_extensions,
    parse_extensions,
    parse_feature_names,
)
from e2kdisk.qcow2.geometry import Geometry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_V2 = struct.Struct(">IIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")

CRYPT_METHODS = {0: "none", 1: "AES", 2: "LUKS"}
COMPRESSION_TYPES = {0: "zlib", 1: "zstd"}


class Header:
    """One image's header, its extensions and its backing file name (QCowHeader)."""

    def __init__(
        self,
        *,
        version: int,
        cluster_bits: int,
        size: int,
        l1_size: int,
        l1_table_offset: int,
        refcount_table_offset: int,
        refcount_table_clusters: int,
        crypt_method: int = 0,
        nb_snapshots: int = 0,
        snapshots_offset: int = 0,
        compatible_features: int = 0,
        refcount_order: int = 4,
        header_length: int = layout.V3_HEADER_BYTES,
        backing_file: str | None = None,
    ) -> None:
        self.version = version
        self.cluster_bits = cluster_bits
        self.size = size
        """Virtual disk size, bytes."""
        self.l1_size = l1_size
        """Entries of the active L1 table."""
        self.l1_table_offset = l1_table_offset
        self.refcount_table_offset = refcount_table_offset
        self.refcount_table_clusters = refcount_table_clusters
        self.crypt_method = crypt_method
        self.nb_snapshots = nb_snapshots
        self.snapshots_offset = snapshots_offset
        self.incompatible_features = 0
        self.compatible_features = compatible_features
        self.autoclear_features = 0
        self.refcount_order = refcount_order
        self.header_length = header_length
        self.unknown_fields = b""
        """Header bytes from 104 to header_length, kept as they are."""
        self.extensions: list[Extension] = []
        self.backing_file = backing_file
        self.backing_file_offset = 0
        """Where the name lies in the first cluster, bytes; pack() leaves it there if it can, else behind all else."""

    def with_(self, **changes: Any) -> Header:
        """A copy with some fields changed."""
        new = Header.__new__(Header)
        new.__dict__.update(self.__dict__ | changes)
        return new

    @property
    def compression_type(self) -> int:
        """0 zlib, 1 zstd (byte 104 of the header)."""
        return self.unknown_fields[0] if self.unknown_fields else 0

    @property
    def backing_format(self) -> str | None:
        """The format of the backing file as the image names it."""
        data = self.extension(layout.EXT_BACKING_FORMAT)
        return None if data is None else data.decode("utf-8", "replace")

    def extension(self, kind: int) -> bytes | None:
        """The data of the first extension of a type."""
        return next((item.data for item in self.extensions if item.type == kind), None)

    def set_extension(self, kind: int, data: bytes | None) -> None:
        """Replace an extension in its place, add it at the front, or remove it."""
        for index, item in enumerate(self.extensions):
            if item.type == kind:
                if data is None:
                    del self.extensions[index]
                else:
                    self.extensions[index] = Extension(kind, data)
                return
        if data is not None:
            self.extensions.insert(0, Extension(kind, data))

    def with_extension(self, kind: int, data: bytes | None) -> list[Extension]:
        """The extensions as they would be with one of a type replaced, added at the front, or removed."""
        extensions = [Extension(item.type, item.data) for item in self.extensions if item.type != kind]
        if data is not None:
            at = next((index for index, item in enumerate(self.extensions) if item.type == kind), 0)
            extensions.insert(at, Extension(kind, data))
        return extensions

    # -- parse ------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, file: str, head: bytes) -> Header:
        """Parse the first cluster (or as much as there is, up to 2 MiB).

        Raises ImageError naming the field. Version 2 headers end at byte 72: what follows is an extension,
        never a feature word.
        """
        if len(head) < layout.V2_HEADER_BYTES:
            raise ImageError(file, "header", f"only {len(head)} bytes long, a qcow2 header has at least 72")
        (
            magic,
            version,
            backing_offset,
            backing_size,
            cluster_bits,
            size,
            crypt_method,
            l1_size,
            l1_offset,
            reftable_offset,
            reftable_clusters,
            nb_snapshots,
            snapshots_offset,
        ) = _V2.unpack_from(head)
        if magic != layout.MAGIC:
            raise ImageError(file, "magic", f"{magic:#010x} is not a qcow2 image")
        if version not in (2, 3):
            raise UnsupportedFeature(file, "version", f"{version} is not supported, only 2 and 3")
        if not layout.MIN_CLUSTER_BITS <= cluster_bits <= layout.MAX_CLUSTER_BITS:
            raise ImageError(file, "cluster_bits", f"{cluster_bits} is outside 9..21")
        header = cls(
            version=version,
            cluster_bits=cluster_bits,
            size=size,
            l1_size=l1_size,
            l1_table_offset=l1_offset,
            refcount_table_offset=reftable_offset,
            refcount_table_clusters=reftable_clusters,
            crypt_method=crypt_method,
            nb_snapshots=nb_snapshots,
            snapshots_offset=snapshots_offset,
            header_length=layout.V2_HEADER_BYTES,
        )
        cluster_size = 1 << cluster_bits
        if version == 3:
            header._parse_v3(file, head, cluster_size)
        header._parse_names(file, head[:cluster_size], backing_offset, backing_size, cluster_size)
        return header

    def _parse_v3(self, file: str, head: bytes, cluster_size: int) -> None:
        if len(head) < layout.V3_HEADER_BYTES:
            raise ImageError(file, "header", f"only {len(head)} bytes long, version 3 has at least 104")
        (
            self.incompatible_features,
            self.compatible_features,
            self.autoclear_features,
            self.refcount_order,
            self.header_length,
        ) = _V3.unpack_from(head, layout.V2_HEADER_BYTES)
        if not layout.V3_HEADER_BYTES <= self.header_length <= cluster_size:
            raise ImageError(file, "header_length", f"{self.header_length} is outside 104..{cluster_size}")
        if self.header_length > len(head):
            raise ImageError(file, "header_length", f"{self.header_length} is past the end of the file")
        if self.refcount_order > layout.MAX_REFCOUNT_ORDER:
            raise ImageError(file, "refcount_order", f"{self.refcount_order} is above 6 (64-bit refcounts)")
        self.unknown_fields = bytes(head[layout.V3_HEADER_BYTES : self.header_length])

    def _parse_names(self, file: str, area: bytes, backing_offset: int, backing_size: int, cluster_size: int) -> None:
        end = min(cluster_size, len(area))
        if backing_offset:
            if backing_size > layout.MAX_BACKING_NAME_BYTES:
                raise ImageError(file, "backing_file_size", f"{backing_size} is above 1023")
            if backing_offset < self.header_length or backing_offset + backing_size > cluster_size:
                raise ImageError(file, "backing_file_offset", f"{backing_offset:#x} is outside the first cluster")
            if backing_offset + backing_size > len(area):
                raise ImageError(file, "backing_file_offset", f"{backing_offset:#x} is past the end of the file")
            end = backing_offset
            if backing_size:
                name = area[backing_offset : backing_offset + backing_size]
                self.backing_file = name.decode("utf-8", "surrogateescape")
                self.backing_file_offset = backing_offset
        self.extensions = parse_extensions(file, area, self.header_length, end)

    # -- judge ------------------------------------------------------------------------------------

    def check_features(self, file: str, *, writing: bool) -> None:
        """Refuse, by name, what this version cannot handle. Raises UnsupportedFeature or ImageError."""
        if self.crypt_method not in (0, 1):
            method = CRYPT_METHODS.get(self.crypt_method, f"method {self.crypt_method}")
            raise UnsupportedFeature(file, "crypt_method", f"{method} encryption is not supported yet")
        known = layout.INCOMPAT_DIRTY | layout.INCOMPAT_CORRUPT | layout.INCOMPAT_COMPRESSION
        unknown = self.incompatible_features & ~known
        if unknown:
            raise UnsupportedFeature(
                file, "incompatible_features", f"{', '.join(self.feature_names(0, unknown))}: not supported"
            )
        if self.compression_type not in COMPRESSION_TYPES:
            raise UnsupportedFeature(file, "compression_type", f"unknown type {self.compression_type}")
        if bool(self.compression_type) != bool(self.incompatible_features & layout.INCOMPAT_COMPRESSION):
            raise ImageError(file, "compression_type", "does not agree with the compression type feature bit")
        if self.compression_type:
            name = COMPRESSION_TYPES[self.compression_type]
            raise UnsupportedFeature(file, "compression_type", f"{name} compression is not supported yet")
        if writing and self.incompatible_features & layout.INCOMPAT_CORRUPT:
            raise ImageError(
                file, "incompatible_features", "the image is marked corrupt; open it read-only or repair it"
            )

    def feature_names(self, kind: int, bits: int) -> list[str]:
        """Names of feature bits, the image's own names first."""
        names = {(item.type, item.bit): item.name for item in FEATURES}
        names |= {
            (item.type, item.bit): item.name
            for item in parse_feature_names(self.extension(layout.EXT_FEATURE_NAMES) or b"")
            if item.name
        }
        return [names.get((kind, bit), f"unknown feature bit {bit}") for bit in range(64) if bits >> bit & 1]

    def check_limits(self, file: str, file_size: int, *, refcounts: bool = True) -> None:
        """Every table lies inside the file, is aligned and of a sane size. Raises ImageError naming the field.

        `file_size` is the image file's size in bytes. Nothing has been allocated for a table before this passes.
        A repair can do without sane `refcounts`.
        """
        geometry = Geometry(self.cluster_bits, self.refcount_order)
        if self.size > layout.MAX_DISK_BYTES:
            raise ImageError(file, "size", f"{self.size} bytes is more than a disk can have")
        if self.l1_size * 8 > layout.MAX_L1_BYTES:
            raise ImageError(file, "l1_size", f"{self.l1_size} entries exceed the limit of 32 MiB")
        if self.l1_size < geometry.l1_entries(self.size):
            raise ImageError(file, "l1_size", f"{self.l1_size} entries are too few for a disk of {self.size} bytes")
        if self.l1_size or self.l1_table_offset:
            _check_table(file, "l1_table_offset", self.l1_table_offset, self.l1_size * 8, geometry, file_size)
        if refcounts:
            self.check_refcount_limits(file, file_size)
        if self.nb_snapshots > layout.MAX_SNAPSHOTS:
            raise ImageError(file, "nb_snapshots", f"{self.nb_snapshots} is above 65536")
        if self.nb_snapshots:
            _check_table(file, "snapshots_offset", self.snapshots_offset, 40 * self.nb_snapshots, geometry, file_size)

    def check_refcount_limits(self, file: str, file_size: int) -> None:
        """The refcount table lies inside the file and is of a sane size. Raises ImageError naming the field."""
        geometry = Geometry(self.cluster_bits, self.refcount_order)
        if self.refcount_table_clusters == 0:
            raise ImageError(file, "refcount_table_clusters", "is 0: the image has no refcount table")
        table_bytes = self.refcount_table_clusters << self.cluster_bits
        if table_bytes > layout.MAX_REFTABLE_BYTES:
            raise ImageError(
                file, "refcount_table_clusters", f"{self.refcount_table_clusters} exceed the limit of 8 MiB"
            )
        _check_table(file, "refcount_table_offset", self.refcount_table_offset, table_bytes, geometry, file_size)

    # -- pack -------------------------------------------------------------------------------------

    def pack(self, file: str) -> bytes:
        """The bytes from the start of the file to the end of the backing name (reference: qcow2_update_header).

        Unknown fields and extensions are kept. If all does not fit in the first cluster, the feature name
        table goes first, it only serves messages; if that is not enough, ImageError and nothing is written.
        """
        for extensions in (
            self.extensions,
            [item for item in self.extensions if item.type != layout.EXT_FEATURE_NAMES],
        ):
            packed = self._pack(extensions)
            if len(packed) <= 1 << self.cluster_bits:
                return packed
        what = f"extensions and backing file name do not fit in {1 << self.cluster_bits} bytes"
        raise ImageError(file, "header", what)

    def beside(self, old: Header) -> Header | None:
        """The same header, laid out such that in a file that holds `old` only the first sector changes what is in use.

        The feature name table is dropped, and the backing file name goes where nothing of the old header lies: there
        it can be written before the first sector names it. None if the extensions alone are longer than a sector, or
        the name finds no place.
        """
        new = self.with_(extensions=[item for item in self.extensions if item.type != layout.EXT_FEATURE_NAMES])
        end, length = new.extensions_end, len(new._name())
        if end > layout.SECTOR_BYTES:
            return None
        if end + length <= layout.SECTOR_BYTES:
            place = end
        elif old.extensions_end <= layout.SECTOR_BYTES <= old.backing_file_offset - length:
            place = layout.SECTOR_BYTES
        else:
            place = max(old.extensions_end, old.backing_file_offset + len(old._name()), layout.SECTOR_BYTES)
        new.backing_file_offset = place
        return new if place + length <= 1 << self.cluster_bits else None

    @property
    def extensions_end(self) -> int:
        """First byte behind the header and its extensions."""
        return self._length() + len(pack_extensions(self.extensions))

    def _length(self) -> int:
        return layout.V2_HEADER_BYTES if self.version == 2 else layout.V3_HEADER_BYTES + len(self.unknown_fields)

    def _name(self) -> bytes:
        return b"" if self.backing_file is None else self.backing_file.encode("utf-8", "surrogateescape")

    def _pack(self, extensions: list[Extension]) -> bytes:
        name = self._name()
        body = b""
        if self.version == 3:
            body = _V3.pack(
                self.incompatible_features,
                self.compatible_features,
                self.autoclear_features,
                self.refcount_order,
                self._length(),
            )
            body += self.unknown_fields
        # The version 2 header of a v0.10 image may be followed by extensions too: same place, right behind it.
        body += pack_extensions(extensions)
        end = layout.V2_HEADER_BYTES + len(body)
        stays = end <= self.backing_file_offset <= (1 << self.cluster_bits) - len(name)
        backing_offset = (self.backing_file_offset if stays else end) if name else 0
        head = _V2.pack(
            layout.MAGIC,
            self.version,
            backing_offset,
            len(name),
            self.cluster_bits,
            self.size,
            self.crypt_method,
            self.l1_size,
            self.l1_table_offset,
            self.refcount_table_offset,
            self.refcount_table_clusters,
            self.nb_snapshots,
            self.snapshots_offset,
        )
        return head + body + bytes(backing_offset - end if name else 0) + name

    def add_feature_names(self) -> None:
        """Put the feature name table behind the other extensions, as new version 3 images have it."""
        self.extensions = [item for item in self.extensions if item.type != layout.EXT_FEATURE_NAMES]
        self.extensions.append(feature_name_table())


def _check_table(file: str, name: str, offset: int, length: int, geometry: Geometry, file_size: int) -> None:
    if offset == 0:
        raise ImageError(file, name, "is 0, where the header lies")
    if offset & geometry.cluster_mask:
        raise ImageError(file, name, f"{offset:#x} is not aligned to a cluster ({geometry.cluster_size} bytes)")
    if offset + length > layout.MAX_HOST_OFFSET or offset + length > file_size:
        raise ImageError(file, name, f"table at {offset:#x} of {length} bytes reaches past the end of the file")
