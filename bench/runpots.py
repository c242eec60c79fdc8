"""What a pot for a run pays to vaults that cheat: `python -m bench.runpots [--seeds 4] [--rounds 20] [--deals iid,1.0,0.3] [--svg FILE]`.

The runs of `bench/groups.py` (twelve vaults, of which two cheat, in four groups; digits), with each group's worth by the loss on 400 rows that no vault has, as
`train federated --groups 4 --worth` writes it into the card, and shared as a pot for what was added is (`audit/core/contribution/runs.py`). Who was named
earns nothing. Shares are told in those of the honest vaults' median: means over all runs, the largest in brackets.

"cut" is a rule that was tried and isn't taken: a group whose mean is longer than the median group's counts as one of that length. It bounds whoever sends more of
the same; but where a few vaults skip, groups without them count for less than they added, and in runs of few rounds honest vaults go unpaid.
"""

import argparse
from pathlib import Path

import numpy as np

from bench.bars import Bar, draw
from bench.groups import CHEATS, Played, played
from clusterai.audit.core.contribution import Seen, added

VAULTS = 12
NAMES = {"iid": "alike", "1.0": "uneven", "0.3": "very uneven"}
BROKEN = ("boost", "weight")
"""Cheats that break a bound: their groups are left out, and they are named."""


def cut(run: Played) -> tuple[Seen, ...]:
    found: list[Seen] = []
    for row, lengths in zip(run.seen, run.lengths, strict=True):
        usual = float(np.median(lengths)) if lengths else 0.0
        worths = (
            worth * min(1.0, usual / max(length, 1e-12))
            for worth, length in zip(row.worths, lengths, strict=True)
        )
        found.append(Seen(row.groups, tuple(worths)))
    return tuple(found)


class Shares:
    """Of one rule, over all runs of a kind."""

    def __init__(self) -> None:
        self.cheats: list[float] = []
        self.unpaid: list[float] = []
        self.unlike: list[float] = []

    def saw(self, run: Played, seen: tuple[Seen, ...]) -> None:
        told = added(seen, VAULTS)
        assert told is not None, "too few rounds to say anything"
        scores = np.array([0 if at in run.named else it.score for at, it in enumerate(told)], np.float64)
        honest = np.array([at not in run.cheats for at in range(VAULTS)])
        usual = float(np.median(scores[honest])) or float(scores[honest].mean()) or np.inf
        self.cheats += (scores[~honest] / usual).tolist()
        self.unpaid.append(float((scores[honest] == 0).mean()))
        self.unlike.append(float(scores[honest].std() / (scores[honest].mean() or np.inf)))

    def __str__(self) -> str:
        paid = f"{np.mean(self.cheats):.2f} ({max(self.cheats):.2f})" if self.cheats else ""
        return f"{paid} | {100 * np.mean(self.unpaid):.0f} % | {np.mean(self.unlike):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--deals", default="iid,1.0,0.3")
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    print(
        "| rows | two of twelve | named | a cheat's share | honest unpaid | spread | cut: share | unpaid | spread |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    drawn: list[Bar] = []
    for deal in asked.deals.split(","):
        drawn.append(Bar(f"rows {NAMES[deal]}" if deal in NAMES else f"Dirichlet {deal}"))
        for cheat in ("", *(it for it in CHEATS if it not in BROKEN)):
            whole, bounded, named = Shares(), Shares(), 0
            for seed in range(asked.seeds):
                run = played(cheat, seed, rounds=asked.rounds, deal=deal, worths=True)
                named += sum(at in run.named for at in run.cheats)
                whole.saw(run, run.seen)
                bounded.saw(run, cut(run))
            caught = f"{named} of {len(whole.cheats)}" if cheat else ""
            print(f"| {deal} | {cheat or 'nobody'} | {caught} | {whole} | {bounded} |", flush=True)
            if cheat:
                mean, most = float(np.mean(whole.cheats)), max(whole.cheats)
                drawn.append(Bar(cheat, mean, min(whole.cheats), most, f"{mean:.2f}, named {caught}"))
    draw(
        asked.svg,
        drawn,
        "a cheat's share of a pot for what was added, in honest vaults' (line: least to most)",
    )


if __name__ == "__main__":
    main()
