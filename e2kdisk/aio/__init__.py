"""The coroutine core: scheduler, locks and wait queues, I/O engines, clocks."""

from e2kdisk.aio.clock import Clock, HostClock, VirtualClock
from e2kdisk.aio.engine import AutoEngine, Engine, ThreadEngine
from e2kdisk.aio.scheduler import Cancelled, Scheduler, Task
from e2kdisk.aio.sync import Lock, WaitQueue

__all__ = [
    "AutoEngine",
    "Cancelled",
    "Clock",
    "Engine",
    "HostClock",
    "Lock",
    "Scheduler",
    "Task",
    "ThreadEngine",
    "VirtualClock",
    "WaitQueue",
]
