"""The virtio block device: a Disk behind one queue (VIRTIO 1.2 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2kdisk.devices.guest_error import GuestError
from e2kdisk.devices.virtio import features
from e2kdisk.devices.virtio.blk_commands import COMMANDS
from e2kdisk.devices.virtio.blk_config import CONFIG
from e2kdisk.devices.virtio.blk_request import IOERR, UNSUPP, BlkRequest
from e2kdisk.devices.virtio.device import VirtioDevice
from e2kdisk.devices.virtio.queue import QUEUE_SIZE_MAX, Chain, SplitQueue
from e2kdisk.errors import E2kDiskError, UsageError

if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk

FLUSH = features.bit("FLUSH")
CONFIG_WCE = features.bit("CONFIG_WCE")


class VirtioBlk(VirtioDevice):
    """A Disk as a virtio block device; plug it into a transport: VirtioMmio(VirtioBlk(disk))."""

    device_id = 2
    name = "virtio-blk"
    commands = COMMANDS

    disk: Disk
    block_size: int
    """Bytes; for the driver's planning only, requests count in sectors of 512 (VIRTIO 1.2 5.2.4)."""
    physical_block_size: int

    def __init__(self, disk: Disk, *, queue_size: int = 256) -> None:
        self.block_size = disk.logical_block_size
        self.physical_block_size = max(disk.physical_block_size, disk.logical_block_size)
        for what, value, least, most in (
            ("queue size", queue_size, 4, QUEUE_SIZE_MAX),
            ("block size", self.block_size, 512, 65536),
            ("physical block size", self.physical_block_size, 512, 1 << 20),
        ):
            if value & (value - 1) or not least <= value <= most:
                raise UsageError(f"virtio-blk: {what} {value} is not a power of 2 from {least} to {most}")
        super().__init__(disk.scheduler, [queue_size])
        self.disk = disk
        self._cache_default = disk.write_cache
        self._config = CONFIG.image(self)
        disk.on_resize.append(self._resized)

    @property
    def disks(self) -> dict[int, Disk]:
        """VirtioDevice.disks."""
        return {0: self.disk}

    # -- requests ---------------------------------------------------------------------------------

    def handle(self, queue: SplitQueue, chain: Chain) -> GuestError | None:
        """VirtioDevice.handle: parse, execute, complete."""
        request = BlkRequest.parse(self, queue, chain)
        if isinstance(request, GuestError):
            queue.drop(chain.head)
            return request
        if self.trace is not None:
            request.report("submit")
        self.scheduler.start(self.execute(request), request.complete, queue)
        return None

    async def execute(self, request: BlkRequest) -> int:
        """Carry a request out; its status (VIRTIO 1.2 5.2.6.2)."""
        command = request.command
        if command is None:
            return UNSUPP
        if command.modifies and self.disk.read_only:
            return IOERR
        if command.feature & ~self.offered:
            return UNSUPP
        try:
            return await command.run(self, request)
        except (OSError, E2kDiskError):
            return IOERR

    # -- features and configuration ---------------------------------------------------------------

    def offer(self) -> int:
        """VirtioDevice.offer."""
        offered = features.mask("ANY_LAYOUT", "INDIRECT_DESC", "EVENT_IDX", "VERSION_1", "RING_RESET")
        offered |= features.mask("SEG_MAX", "BLK_SIZE", "FLUSH", "TOPOLOGY", "CONFIG_WCE")
        if self.disk.read_only:
            return offered | features.bit("RO")
        return offered | features.mask("DISCARD", "WRITE_ZEROES")

    def features_settled(self) -> None:
        """VirtioDevice.features_settled: decide who makes writes durable (VIRTIO 1.2 5.2.5.2, 5.2.6.2)."""
        # A driver that cannot FLUSH takes a completed write for a durable one, so the cache is off for it; also
        # for one that can switch the cache but not flush it, until it switches it on.
        self.disk.write_cache = self._cache_default and bool(self.features & FLUSH)
        self._config = CONFIG.image(self)

    @property
    def config_size(self) -> int:
        """VirtioDevice.config_size."""
        return CONFIG.size

    def config_name(self, offset: int) -> str:
        """VirtioDevice.config_name."""
        return CONFIG.name_of(offset)

    def read_config(self, offset: int, size: int) -> int:
        """VirtioDevice.read_config."""
        return int.from_bytes(self._config[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """VirtioDevice.write_config: writeback is the one writable field (VIRTIO 1.2 5.2.5)."""
        register = CONFIG.at.get(offset)
        if register is not None and register.write is not None and self.features & CONFIG_WCE:
            register.write(self, value & 0xFF)
            self._config = CONFIG.image(self)

    def _resized(self, *_: object) -> None:
        self._config = CONFIG.image(self)
        self.config_changed()

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """VirtioDevice.save, and the cache mode, which the driver may have chosen."""
        return super().save() | {"write_cache": self.disk.write_cache}

    def load(self, state: dict[str, object]) -> None:
        """VirtioDevice.load."""
        super().load(state)
        self.disk.write_cache = bool(state["write_cache"])
        self._config = CONFIG.image(self)
