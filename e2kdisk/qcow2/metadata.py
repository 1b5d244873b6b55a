"""Metadata: what every owner of tables in one image needs to read, change, order and guard them."""

from __future__ import annotations

from typing import NamedTuple

from e2kdisk.block.node import Node
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import HeaderWriter
from e2kdisk.qcow2.overlap import OverlapGuard
from e2kdisk.qcow2.write_order import WriteOrder


class Metadata(NamedTuple):
    """The parts of one open image that its tables are built on."""

    file: Node
    header: Header
    writer: HeaderWriter
    """Switches the header to tables that have moved."""
    geometry: Geometry
    order: WriteOrder
    """Where each kind of table joins the order of writes."""
    guard: OverlapGuard
    """Is told where each table lies."""
