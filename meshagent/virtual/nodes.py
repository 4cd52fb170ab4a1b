"""Whole nodes on the kernel: the robot's own `Node`, with clock, transport, journal, randomness and devices exchanged.

`Mesh` is a company of devices, `Member` one of them through all its processes. The taps that tell the watcher what
happens sit in `WatchedDriver`, between the machines and everything else, and change nothing.
"""
