"""`clusterai data contribution STUDY.json`: what each contributor's data was worth, and what the pot's contract is told."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure


def contribution(
    study: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY.json", help="Held-out rows, contributors' rows, beacon, pot.", show_default=False
        ),
    ],
    expect: Annotated[
        str | None,
        typer.Option(metavar="0xDIGEST", help="Fail unless this appraisal comes out.", show_default=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Appraise contributors' data on rows that nobody contributed, or check another's appraisal."""
    from clusterai.audit.core.contribution.neighbours import UNIT
    from clusterai.cli import contributing
    from clusterai.protocol import money
    from clusterai.protocol.ids import Address, checksummed, hex0x

    found = contributing.appraised(study)
    digest = hex0x(found.digest())
    if expect is not None and expect.lower() != digest:
        raise Failure(
            "these files give another appraisal", f"it is {digest}", "contest the scores", Exit.UNTRUE
        )
    owners = sorted(it.contributor for it in found.contributors)
    scores = found.scores(owners)
    if json:
        rows = [
            {
                "owner": checksummed(Address(it.contributor)), "rows": hex0x(it.rows), "own": it.own, "copied": it.copied,
                "value": it.value / UNIT, "error": it.error / UNIT, "share_wei": it.share_wei, "propose_slashing": it.poison,
            }
            for it in found.contributors
        ]  # fmt: skip
        chain = {
            "participants": [checksummed(Address(it)) for it in owners],
            "scores": list(map(str, scores)),
        }
        say.emit({"digest": digest, "study": hex0x(found.study), "contributors": rows, **chain})
        return
    say.table(
        ("owner", "#own rows", "#copied", "#value", "#± error", "#share", ""),
        [
            (
                checksummed(Address(it.contributor)), it.own, it.copied, f"{it.value / UNIT:.2f}", f"{it.error / UNIT:.2f}",
                money.show(it.share_wei), "propose to slash" if it.poison else "",
            )
            for it in found.contributors
        ],
    )  # fmt: skip
    say.tell(f"appraisal {digest}")
    say.say(
        "value: held-out rows told right by it, of those that guessing leaves; evidence for Rewards.scorePot: the digest"
    )
