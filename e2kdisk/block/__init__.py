"""Nodes that hold bytes (file, memory, null, raw), the Disk that controllers use, open options and open policy."""
