"""Elbrus (e2k, version 4): wide instructions decoded, executed, assembled and disassembled.

The way of an instruction: bytes -> Bundle (bundle.py) -> Instruction (decode.py) -> Python function (translate.py).
What an operation is called, where it may stand and what it does is in one table (operations.py).
"""
