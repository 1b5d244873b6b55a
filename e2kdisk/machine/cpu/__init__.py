"""One adapter per CPU; what they have in common is in cpu.py, and nothing above knows more."""
