"""More of the same, from other seeds: `python -m tests.contracts.long_histories 2000 120 [leases]`."""

import sys

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.contracts.test_leases_equal_bytecode import LeaseHistories
from tests.contracts.test_twins_equal_bytecode import Histories


def main() -> None:
    examples, steps = map(int, sys.argv[1:3])
    machine = LeaseHistories if sys.argv[3:] == ["leases"] else Histories
    run_state_machine_as_test(  # pyright: ignore[reportUnknownVariableType]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
        ),
    )
    print(f"{examples} histories of {steps} steps: twin and bytecode agree")


if __name__ == "__main__":
    main()
