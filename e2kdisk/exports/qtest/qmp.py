"""QMP, as much of it as programs need that drive devices by qtest (QEMU documentation, interop/qmp-spec).

A table of commands, each with the types of its arguments; what is not in it is refused as QEMU refuses what it has not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import e2kdisk
from e2kdisk.errors import E2kDiskError
from e2kdisk.exports.qtest import models
from e2kdisk.exports.qtest.emulator import Emulator
from e2kdisk.exports.qtest.models import MachineModel
from e2kdisk.exports.qtest.qmp_json import BadJson, JsonStream

VERSION: dict[str, object] = {
    "qemu": {"micro": 0, "minor": 2, "major": 7},
    "package": f"e2kdisk {e2kdisk.__version__}",
}
"""The QEMU whose answers these are."""
SECTOR_BYTES = 512


class QmpError(Exception):
    """What becomes an error answer."""

    def __init__(self, description: str, kind: str = "GenericError") -> None:
        super().__init__(description)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what carries it out, and its arguments; those that must be there first."""

    run: Callable[..., Any]
    needed: dict[str, type] = field(default_factory=dict)
    optional: dict[str, type] = field(default_factory=dict)

    def check(self, arguments: dict[str, Any]) -> None:
        """Raises QmpError for arguments that do not fit."""
        for name in self.needed:
            if name not in arguments:
                raise QmpError(f"Parameter '{name}' is missing")
        for name, value in arguments.items():
            kind = self.needed.get(name) or self.optional.get(name)
            if kind is None:
                raise QmpError(f"Parameter '{name}' is unexpected")
            if type(value) is not kind:
                raise QmpError(f"Invalid parameter type for '{name}', expected: {_KINDS[kind]}")


_KINDS = {int: "integer", str: "string", bool: "boolean"}


class QmpSession:
    """One client's conversation; a Session of the server."""

    def __init__(self, emulator: Emulator, machines: tuple[MachineModel, ...], send: Callable[[bytes], None]) -> None:
        self.emulator = emulator
        self.machines = machines
        self._send = send
        self._stream = JsonStream()
        self._negotiated = False
        self._open = False
        emulator.listeners.append(self._event)

    def opened(self) -> None:
        """Session.opened."""
        self._stream = JsonStream()
        self._negotiated = False
        self._open = True
        self._answer({"QMP": {"version": VERSION, "capabilities": []}})

    def closed(self) -> None:
        """Session.closed."""
        self._open = False

    def receive(self, data: bytes) -> None:
        """Session.receive."""
        self._stream.feed(data)

    def step(self) -> bool:
        """Session.step: one message."""
        try:
            found = self._stream.next()
            if found is None:
                return False
            answer = self._reply(found[0])
        except BadJson as error:
            answer = _error(QmpError(str(error)))
        self._answer(answer)
        return True

    def _answer(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message).encode() + b"\r\n")

    def _event(self, name: str, data: dict[str, object] | None) -> None:
        if self._open and self._negotiated:
            now_us = time.time_ns() // 1000
            stamp = {"seconds": now_us // 1_000_000, "microseconds": now_us % 1_000_000}
            self._answer({"timestamp": stamp, "event": name} | ({} if data is None else {"data": data}))

    def _reply(self, message: Any) -> dict[str, Any]:
        identity = {"id": message["id"]} if isinstance(message, dict) and "id" in message else {}
        try:
            result = self._execute(message)
            self.emulator.go_on()
            return {"return": result} | identity
        except QmpError as error:
            return _error(error) | identity
        except (E2kDiskError, OSError) as error:
            return _error(QmpError(" ".join(str(error).split()))) | identity

    def _execute(self, message: Any) -> Any:
        if not isinstance(message, dict):
            raise QmpError("QMP input must be a JSON object")
        for key in message:
            if key not in ("execute", "arguments", "id"):
                raise QmpError(f"QMP input member '{key}' is unexpected")
        if "execute" not in message:
            raise QmpError("QMP input lacks member 'execute'")
        name, arguments = message["execute"], message.get("arguments", {})
        if not isinstance(name, str):
            raise QmpError("QMP input member 'execute' must be a string")
        if not isinstance(arguments, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        if not self._negotiated:
            if name != "qmp_capabilities":
                raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
            COMMANDS[name].check(arguments)
            self._negotiated = True
            return {}
        if name == "qmp_capabilities":
            raise QmpError("Capabilities negotiation is already complete, command ignored", "CommandNotFound")
        if name not in COMMANDS:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        COMMANDS[name].check(arguments)
        return COMMANDS[name].run(self, **{key.replace("-", "_"): value for key, value in arguments.items()})

    # -- commands ---------------------------------------------------------------------------------

    def query_status(self) -> dict[str, object]:
        """RunState."""
        return {"status": self.emulator.status, "singlestep": False, "running": self.emulator.running}

    def query_machines(self) -> list[dict[str, object]]:
        """What -machine takes."""
        return [
            {
                "hotpluggable-cpus": False,
                "name": model.name,
                "numa-mem-supported": False,
                "cpu-max": 1,
                "deprecated": False,
            }
            for model in self.machines
        ]

    def qom_list_types(self, implements: str = "", abstract: bool = False) -> list[dict[str, object]]:
        """What -device takes, and where those types come from."""
        return [
            ({"abstract": True} if kind.abstract else {}) | {"name": name, "parent": kind.parent}
            for name, kind in models.types_of(self.machines).items()
            if (abstract or not kind.abstract) and (not implements or models.is_a(name, implements))
        ]

    def block_resize(self, size: int, device: str = "", node_name: str = "") -> dict[str, object]:
        """Change the size of a disk, in bytes; its controller tells the guest."""
        drives = self.emulator.drives
        disk = drives.disks.get(device) if device else drives.nodes.get(node_name)
        if disk is None:
            raise QmpError(f"Cannot find device='{device}' nor node-name='{node_name}'")
        if size < 0:
            raise QmpError("Parameter 'size' expects a >0 size")
        if size % SECTOR_BYTES:
            raise QmpError("The new size must be a multiple of 512")
        if size > SIZE_MAX:
            raise QmpError("Required too big image size, it must be not greater than 9223372035781033984")
        disk.resize(size)
        return {}

    def run_state(self, change: Callable[[Emulator], None]) -> dict[str, object]:
        """Commands that only change what runs."""
        change(self.emulator)
        return {}


SIZE_MAX = (1 << 63) - (1 << 30)
"""Bytes of the largest disk, as in QEMU."""


def _error(error: QmpError) -> dict[str, Any]:
    return {"error": {"class": error.kind, "desc": str(error)}}


def _state(change: Callable[[Emulator], None]) -> Command:
    return Command(lambda session: session.run_state(change))


COMMANDS: dict[str, Command] = {
    "qmp_capabilities": Command(lambda session: {}),
    "query-version": Command(lambda session: VERSION),
    "query-commands": Command(lambda session: [{"name": name} for name in COMMANDS]),
    "query-status": Command(QmpSession.query_status),
    "query-machines": Command(QmpSession.query_machines),
    "qom-list-types": Command(QmpSession.qom_list_types, optional={"implements": str, "abstract": bool}),
    "block_resize": Command(QmpSession.block_resize, {"size": int}, {"device": str, "node-name": str}),
    "stop": _state(Emulator.stop),
    "cont": _state(Emulator.cont),
    "system_reset": _state(lambda emulator: emulator.reset(guest=False, reason="host-qmp-system-reset")),
    "quit": _state(lambda emulator: emulator.end("host-qmp-quit")),
}
"""Name -> what it takes and does."""
