"""How a machine lives: stepped by a driver, remembered by a journal, the same in the simulator as for real.

The room exists so that what decides never touches a clock, a socket or a disk. It refuses to know what any
machine decides.
"""

from clusterai.runtime.machine import Journal, Linked, Machine, Received, Save, Send, Started, Tick, Unlinked

__all__ = ["Journal", "Linked", "Machine", "Received", "Save", "Send", "Started", "Tick", "Unlinked"]
