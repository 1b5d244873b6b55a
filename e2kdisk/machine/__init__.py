"""Whole small computers around the disks: run loop, console, trace, and the door for other people's Unicorn."""
