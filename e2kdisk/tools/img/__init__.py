"""The command e2kdisk-img: the sub-commands, options, output and exit status of qemu-img."""
