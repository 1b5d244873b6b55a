"""What a board needs besides disks: serial ports, interrupt controllers, timers, power."""
