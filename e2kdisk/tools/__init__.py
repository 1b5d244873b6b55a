"""The command line: thin, starts fast, imports late; one module a command, listed in main.py."""
