"""The same disks and boards for other programs: emulators that attach a disk, tests that drive a board."""
