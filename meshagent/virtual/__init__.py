"""The deterministic kernel: whole nodes in virtual time, with faults, replayed from a seed.

Only clock, transport, journal, randomness and executor are exchanged; node, driver, links, gate, codec and role are
those of the robot. `python -m meshagent.virtual.run --seeds 0:1000` looks for a seed that breaks a promise.
"""
