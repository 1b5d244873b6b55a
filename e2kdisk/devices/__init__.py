"""Disk controllers and what they stand on: guest memory, interrupt lines, declared registers."""
