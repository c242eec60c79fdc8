"""What if people play this for money: providers, auditors and requesters with strategies, in virtual time.

The room exists so that "cheating costs more than it saves" is measured on the machines that are shipped and under the rules
that are deployed, not on a model of them: a strategy wraps a machine, the contracts are their twins, and only the work is
a number. It refuses to know daemons, networks and clocks.
"""

from clusterai.simulator.core.market import Market, Outcome
from clusterai.simulator.core.report import Report, Row, simulate
from clusterai.simulator.core.scenario import Scenario, ScenarioRefused, decode_scenario

__all__ = [
    "Market",
    "Outcome",
    "Report",
    "Row",
    "Scenario",
    "ScenarioRefused",
    "decode_scenario",
    "simulate",
]
