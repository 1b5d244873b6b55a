"""e2kdisk io: requests to a disk by hand or from a script, in the language of qemu-io."""
