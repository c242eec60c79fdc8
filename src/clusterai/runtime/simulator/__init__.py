"""A whole network in one thread: virtual time, seeded faults, and the machines that really run.

A bug found here is a seed and a commit. Time, network, disk and chain are handed in, so the machines under test are
those of the daemons, byte for byte; what they send is encoded and decoded, what they save may be torn, and they die
between any two effects. After the faults stop, everything must finish. The simulator refuses to know what any machine
decides or any message means; worlds, villains and checkers live with the tests.
"""

from clusterai.runtime.simulator.blocks import Blockchain, Ledger
from clusterai.runtime.simulator.disk import MemoryJournal
from clusterai.runtime.simulator.faults import Fault, Faults
from clusterai.runtime.simulator.network import Network
from clusterai.runtime.simulator.process import Host, Process
from clusterai.runtime.simulator.shrink import shrink
from clusterai.runtime.simulator.simulation import Broken, Observer, Simulation
from clusterai.runtime.simulator.timeline import Timeline

__all__ = [
    "Blockchain",
    "Broken",
    "Fault",
    "Faults",
    "Host",
    "Ledger",
    "MemoryJournal",
    "Network",
    "Observer",
    "Process",
    "Simulation",
    "Timeline",
    "shrink",
]
