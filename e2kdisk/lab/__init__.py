"""The laboratory: a guest, a controller and a real image format run together, and the run is a function of a seed.

decisions   every choice has a name and a number; the list of them is the run
volume      the file below the format, in memory: latency, order, errors, power cuts are decisions
rig         one machine, put back to its base for each run
monitors    what must hold in every run
explore     many runs: seeds, all orders, all cut points; shrink makes a failing one short
"""
