"""The state of a whole machine as plain data: CPU, RAM, chips, controllers, time, console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2kdisk.errors import UsageError

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine

MachineState = dict[str, Any]
"""Dictionaries, lists, strings, numbers, bytes; see `state_file` for it as bytes."""

VERSION = 1


def save_machine(machine: Machine) -> MachineState:
    """Machine.save."""
    # A request in flight is a coroutine, which cannot be kept: it ends first, as if the disk had been quick. So this
    # is itself an event in the guest's life; a state to come back to without one is a base and a list of decisions.
    machine.scheduler.drain()
    return {
        "version": VERSION,
        "board": machine.board.NAME,
        "cpu": machine.board.cpu_name,
        "ram_size": machine.board.ram.view.nbytes,
        "instructions": machine.instructions,
        "resets": machine.resets,
        "power_off": machine.power_off,
        "time": machine.time.save(),
        "consoles": [console.save() for console in machine.consoles],
        "devices": machine.board.save(),
        "ram": machine.board.save_ram(),
    }


def load_machine(machine: Machine, state: MachineState) -> None:
    """Machine.load."""
    if state.get("version") != VERSION:
        raise UsageError(f"a machine saved as version {state.get('version')}: this e2kdisk reads version {VERSION}")
    board = machine.board
    for name, present in (("board", board.NAME), ("cpu", board.cpu_name), ("ram_size", board.ram.view.nbytes)):
        if state[name] != present:
            raise UsageError(f"the saved machine has {name} {state[name]}, this one has {present}")
    machine.scheduler.drain()
    # Time first: devices arm their timers by it. RAM before devices: a ring is looked up in it.
    machine.time.load(state["time"])
    board.load_ram(state["ram"])
    board.load(state["devices"])
    machine.time.load(state["time"])  # again: a timer chip that looks at the time while it loads is no guest that does
    for console, saved in zip(machine.consoles, state["consoles"], strict=True):
        console.load(saved)
    machine.instructions = state["instructions"]
    machine.resets = state["resets"]
    machine.power_off = state["power_off"]
    machine.fault = None
