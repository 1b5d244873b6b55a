"""e2kdisk: a virtual disk for emulators, from the controller's registers down to the qcow2 file."""

__version__ = "0.1.0"
