"""Which of Flower's strategies give with sums what they give with each client's reply.

A strategy gets one reply from each client that is in the sum, and all of them say the same: the weighted mean. So a strategy that looks
at replies through their weighted mean alone is exact, whatever it does with it afterwards. What compares clients with one another would
see n equal ones, and silently do something else than its name says: it is refused.
"""

LINEAR = frozenset(
    {
        "FedAvg",
        "FedAvgM",
        "FedProx",
        "FedOpt",
        "FedAdam",
        "FedAdagrad",
        "FedYogi",
        "FaultTolerantFedAvg",
    }
)
"""`FedProx` differs at the clients only; the others step from the mean."""
COMPARING = frozenset(
    {
        "Krum",
        "MultiKrum",
        "Bulyan",
        "FedMedian",
        "FedTrimmedAvg",
        "QFedAvg",
        "FedXgbBagging",
        "FedXgbCyclic",
        "FedXgbNnAvg",
        "DPFedAvgFixed",
        "DPFedAvgAdaptive",
        "DifferentialPrivacyServerSideFixedClipping",
        "DifferentialPrivacyServerSideAdaptiveClipping",
        "DifferentialPrivacyClientSideFixedClipping",
        "DifferentialPrivacyClientSideAdaptiveClipping",
    }
)
ROBUST = frozenset({"Krum", "MultiKrum", "Bulyan", "FedMedian", "FedTrimmedAvg"})
"""These make sense over the means of random groups."""


def objection(names: list[str], groups: int = 1) -> str | None:
    """Why a strategy can't be used; None where it can.

    Args:
        names: of its class and those above it, nearest first, each `package.Class`; with a star where a class outside of Flower has an
            `aggregate_train` of its own.
        groups: over how many groups there are sums.
    """
    for name in names:
        package, _, made = name.rstrip("*").rpartition(".")
        if package != "flwr":
            continue
        if made in LINEAR:
            return None
        if made in ROBUST and groups >= 3:
            return None
        if made in ROBUST:
            return f"{made} compares single replies, and here there are only sums: use FedAvg, or sums over random groups (--groups 3 or more)"
        if made in COMPARING:
            return f"{made} needs each client's own reply, and here there are only sums: use {', '.join(sorted(LINEAR))}"
        break
    return f"the strategy {names[0] if names else '?'} is none of Flower's that is known to be exact over sums: build on {', '.join(sorted(LINEAR))}"


def compares(names: list[str]) -> bool:
    """Whether a strategy looks at replies one by one, so that it must get each group's own mean."""
    return any(
        name.rstrip("*").partition(".")[0] == "flwr" and name.rstrip("*").rpartition(".")[2] in ROBUST
        for name in names
    )


def notice(names: list[str]) -> str:
    """What to say of a strategy that changes how replies are aggregated."""
    own = [name.rstrip("*") for name in names if name.endswith("*")]
    return (
        f"{own[0]} aggregates itself: it sees the mean once for each client, not each client's reply"
        if own
        else ""
    )
