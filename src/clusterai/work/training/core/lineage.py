"""A model's lineage card: out of what it was made, by whom, under which grants, and how much privacy that cost.

Everything in it is checkable by somebody else: digests, signed uses, receipts. It is written after each round, so that a run that broke
off has one too. It says nothing of how good the model is.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from clusterai.protocol.ids import hex0x
from clusterai.work.training.core.evidence import Group
from clusterai.work.training.spec import Run


class Source(msgspec.Struct, frozen=True):
    """One vault's data."""

    name: str
    dataset: bytes
    snapshot: bytes
    subject: bytes
    member: bytes
    grant: bytes
    membership: bytes = b""


class Part(msgspec.Struct, frozen=True):
    """What one vault did in a round."""

    subject: bytes
    order: bytes
    commitment: bytes
    epsilon_micro: int
    use: bytes
    charged_wei: int
    receipt: Any = None


class Told(msgspec.Struct, frozen=True):
    """One round.

    Attributes:
        summed: the members whose vectors are in the sum. `dropped`: others, with why.
        transcript: digest of the secure aggregation's signed transcript; empty where there was none.
        model: digest of the parameters that came of it.
        groups: where the sums of several groups made this round; `products` are of the updates of those that were within their bounds.
    """

    number: int
    type: str
    group: str
    message: bytes
    parts: tuple[Part, ...]
    summed: tuple[bytes, ...]
    dropped: dict[str, str]
    transcript: bytes
    model: bytes
    groups: tuple[Group, ...] = ()
    products: tuple[tuple[float, ...], ...] = ()


class Named(msgspec.Struct, frozen=True):
    """A vault that the run went on without.

    Attributes:
        number: of the last round that it was asked in.
    """

    subject: bytes
    name: str
    number: int
    why: str


def card(
    run: Run,
    sources: list[Source],
    rounds: list[Told],
    *,
    strategy: str,
    flower: str,
    model: bytes,
    wasted: Sequence[Part] = (),
    rule: str = "mean",
    named: Sequence[Named] = (),
) -> dict[str, Any]:
    """As JSON; bytes are hex.

    Args:
        wasted: what vaults did in rounds of which no sum came: it counts in ε and price.
    """
    spent = {hex0x(source.subject): 0 for source in sources}
    parts = [*(part for told in rounds for part in told.parts), *wasted]
    for part in parts:
        spent[hex0x(part.subject)] += part.epsilon_micro
    return {
        "format": "clusterai-lineage/1",
        "model": hex0x(model),
        "run": hex0x(run.digest),
        "app": hex0x(run.app),
        "flower": flower,
        "strategy": strategy,
        "requester": hex0x(run.requester),
        "sums": "secure aggregation" if run.masked else "plain",
        "groups": run.groups,
        "rule": rule,
        "norm": run.norm,
        "privacy": {
            "epsilon": max(spent.values(), default=0) / 1_000_000,
            "delta": run.delta_pico / 10**12,
            "unit": "one person's rows at one vault" if run.noise_milli else "none",
            "blocks": run.blocks,
            "noise_multiplier": run.noise_milli / 1000,
            "per_vault_epsilon": {name: micro / 1_000_000 for name, micro in spent.items()},
        },
        "sources": [
            {
                "name": source.name,
                "dataset": hex0x(source.dataset),
                "snapshot": hex0x(source.snapshot),
                "subject": hex0x(source.subject),
                "member": hex0x(source.member),
                "grant": hex0x(source.grant),
            }
            for source in sources
        ],
        "named": [
            {"name": it.name, "subject": hex0x(it.subject), "after": it.number, "why": it.why} for it in named
        ],
        "rounds": [
            {
                "number": told.number,
                "type": told.type,
                "group": told.group,
                "message": hex0x(told.message),
                "summed": [hex0x(member) for member in told.summed],
                "dropped": told.dropped,
                "transcript": hex0x(told.transcript) if told.transcript else "",
                "model": hex0x(told.model) if told.model else "",
                "groups": [
                    {
                        "summed": [hex0x(member) for member in group.members],
                        "transcript": hex0x(group.transcript),
                        "verdict": group.verdict or "good",
                        "worth": group.worth,
                    }
                    for group in told.groups
                ],
                "parts": [
                    {
                        "subject": hex0x(part.subject),
                        "order": hex0x(part.order),
                        "commitment": hex0x(part.commitment),
                        "epsilon": part.epsilon_micro / 1_000_000,
                        "use": hex0x(part.use),
                        "charged_wei": part.charged_wei,
                        "receipt": part.receipt,
                    }
                    for part in told.parts
                ],
            }
            for told in rounds
        ],
        "failed_parts": len(wasted),
        "charged_wei": sum(part.charged_wei for part in parts),
    }
