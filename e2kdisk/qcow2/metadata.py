"""Metadata: what every owner of tables in one image needs to read, change, order and guard them."""

from __future__ import annotations

from e2kdisk.block.node import Node
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import HeaderWriter
from e2kdisk.qcow2.overlap import OverlapGuard
from e2kdisk.qcow2.write_order import WriteOrder


class Metadata:
    """The parts of one open image that its tables are built on."""

    __slots__ = ("file", "geometry", "guard", "header", "order", "writer")

    def __init__(
        self,
        file: Node,
        header: Header,
        writer: HeaderWriter,
        geometry: Geometry,
        order: WriteOrder,
        guard: OverlapGuard,
    ) -> None:
        self.file = file
        self.header = header
        self.writer = writer
        """Switches the header to tables that have moved."""
        self.geometry = geometry
        self.order = order
        """Where each kind of table joins the order of writes."""
        self.guard = guard
        """Is told where each table lies."""
