"""What a beacon costs in gas: `PYTHONPATH=src:. python bench/beacon.py`; drand's on anvil with the rules of Prague."""

from clusterai.audit.core import drand
from clusterai.ledger.artifacts import load
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import local_plan
from tests.contracts.anvil import anvil
from tests.contracts.cast import CHAIN_ID, DEPLOYER
from tests.contracts.test_drand_equals_bytecode import OWN, START_S, DrandPair, pulse, ruled


def main() -> None:
    rules = ruled(OWN)
    plan = local_plan(load, DEPLOYER.address, rules)
    with anvil(plan, DEPLOYER, CHAIN_ID, START_S - 1_000) as chain:
        pair = DrandPair(chain, rules, START_S)
        pair.provider()
        pair.committed_epoch()
        pair.until(pair.now_s + rules.epoch_s)
        event, _ = pair.committed_epoch()
        print(f"commitEpoch, the second           {chain.gas_used:>9,}")
        pair.until(OWN.time_of(event.round))
        pair.expect(drand.call(pulse(event.round)))
        print(f"recordPulse                       {chain.gas_used:>9,}")
        pair.until(pair.now_s + rules.epoch_s)
        event, _ = pair.committed_epoch()
        pair.until(OWN.time_of(event.round) + rules.epoch_s + 1)
        pair.expect(calls.RecordLapsed(event.round))
        print(f"recordLapsed                      {chain.gas_used:>9,}")


if __name__ == "__main__":
    main()
