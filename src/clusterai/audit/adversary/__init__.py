"""What if people play this for money: providers, auditors and requesters with strategies, in virtual time, over the contracts' twins.

The room exists so that "cheating costs more than it saves" is measured under the rules that are deployed, not under a
model of them. It refuses to know daemons, networks and clocks; the work is a chain of hashes whose cost is a number.
"""

from clusterai.audit.adversary.core.market import Market, Outcome
from clusterai.audit.adversary.core.report import Report, Row, simulate
from clusterai.audit.adversary.core.scenario import Scenario, ScenarioRefused, decode_scenario

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
