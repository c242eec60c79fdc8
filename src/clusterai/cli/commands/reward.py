"""`clusterai data reward …`: a pot that is shared out by what each participant's data was worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile

if TYPE_CHECKING:
    from clusterai.cli.pots import Found, Told
    from clusterai.ledger.adapters.network import Network
    from clusterai.ledger.core.calls import Call
    from clusterai.protocol.signing import Key

PotId = Annotated[str, typer.Argument(metavar="POT", help="Its id, or how it begins.", show_default=False)]
StudyPath = Annotated[
    Path,
    typer.Argument(metavar="STUDY.json", help="Held-out rows and contributors' tables.", show_default=False),
]
HOUR_S = 3_600


class OfPanel(options.Signed, frozen=True, kw_only=True):
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="A validator's hot key. Default: that of the local network's first.",
            show_default=False,
        ),
    ] = None


def join_group(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Pots for data: put one up, join it, score it, check the scores, be paid.", no_args_is_help=True
    )
    group.command("open")(options.spread(open_pot))
    group.command("list")(options.spread(list_pots))
    for command in (show, join, gather, score, check, contest, vote, close, claim):
        group.command()(options.spread(command))
    app.add_typer(group, name="reward")


def open_pot(
    study: StudyPath,
    amount: Annotated[str, typer.Option(help="What can be earned, such as 10.", show_default=False)],
    evaluator: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Who scores; no participant. Default: you.", show_default=False),
    ] = None,
    full: Annotated[
        float,
        typer.Option(
            min=0,
            help="Held-out rows told right at which all of it is earned; below, the rest comes back. 0: all.",
        ),
    ] = 0,
    referral: Annotated[
        float,
        typer.Option(min=0, max=20, metavar="PERCENT", help="Of a share, for who brought its participant."),
    ] = 0,
    join_hours: Annotated[
        float, typer.Option(min=0.001, max=4_000, help="For how long participants may join.")
    ] = 24 * 7,
    score_hours: Annotated[
        float, typer.Option(min=0.001, max=4_000, help="How long after that scores may come.")
    ] = 24 * 7,
    identity: IdentityFile = None,
    *,
    chain: options.Signed,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    answer: options.Answer,
) -> None:
    """Put up a pot for a study's participants. The study is fixed by it: held-out rows, columns, neighbours, quality; or the app of a federated run."""
    from clusterai.audit.core.contribution.neighbours import UNIT
    from clusterai.cli import pots, rewarding
    from clusterai.ledger.core import calls
    from clusterai.protocol.ids import checksummed, hex0x
    from clusterai.protocol.money import show as money

    at, signer = chain.at(), chain.signer()
    amount_wei = rewarding.amount(amount)
    brought = rewarding.participants(study, chain.data, chain.network, identity)
    terms = rewarding.terms(study, amount_wei)
    who = signer.address if evaluator is None else rewarding.address_of(evaluator)
    pot = pots.opened(
        signer.address,
        who,
        terms,
        brought,
        round(full * UNIT),
        pots.now_s(at),
        round(join_hours * HOUR_S),
        round(score_hours * HOUR_S),
        round(referral * 100),
    )
    pot_id = pot.struct()
    if not answer.json:
        say.say(f"{money(amount_wei)} for {len(pot.participants)} participants, scored by {checksummed(who)}")
        if who == signer.address:
            say.say("you score yourself: participants may mind. --evaluator names somebody else")
    if dry_run:
        say.say("nothing was sent")
        return
    options.confirm("Put it up?", yes)
    sent = _send(at, signer, [calls.Approve(at.contracts.rewards, amount_wei), calls.OpenPot(pot)])
    if answer.json:
        say.emit({"pot": hex0x(pot_id), "study": hex0x(terms.digest), "transactions": sent})
        return
    say.tell(hex0x(pot_id))
    say.say("participants: clusterai data reward join POT --rows FILE")


def list_pots(*, chain: options.Chain, answer: options.Answer) -> None:
    """List pots, oldest first."""
    from clusterai.cli import pots
    from clusterai.protocol.ids import hex0x
    from clusterai.protocol.money import show as money

    found = pots.look(chain.at())
    if answer.json:
        say.emit([pots.shown(it) for it in found])
        return
    say.table(
        ("pot", "stage", "#amount", "#joined", "#earned"),
        (
            (
                hex0x(it.id)[:18],
                it.stage,
                money(it.pot.amount_wei),
                f"{len(it.joined)}/{len(it.pot.participants)}",
                money(sum(wei for _, wei in (*it.shares, *it.referrals))),
            )
            for it in found
        ),
    )


def show(pot: PotId, *, chain: options.Chain, answer: options.Answer) -> None:
    """Print a pot's terms, who joined, who brought whom, scores and shares. Look here before you join."""
    from clusterai.audit.core.contribution.neighbours import UNIT
    from clusterai.cli import pots
    from clusterai.protocol.money import show as money

    at = chain.at()
    told = pots.one(at, pot)
    shown = pots.shown(told)
    if answer.json:
        say.emit(shown)
        return
    say.tell(f"{shown['pot']}  {told.stage}, {money(told.pot.amount_wei)}")
    say.tell(f"payer {shown['payer']}, evaluator {shown['evaluator']}, study {shown['study']}")
    if told.pot.full:
        say.tell(f"all of it is earned at {told.pot.full / UNIT:g} held-out rows told right")
    if told.pot.referral_bps:
        say.tell(f"{told.pot.referral_bps / 100:g} % of a share goes to who brought its participant")
    left_s = {"open": told.pot.join_by_s, "closed": None}.get(told.stage, told.by_s)
    if left_s is not None:
        say.tell(f"this stage lasts another {max(0, left_s - pots.now_s(at))} s")
    say.table(
        ("participant", "brought by", "#place", "#score", "#share"),
        (
            (
                it["owner"],
                it["referrer"] or "",
                it["place"] or "not joined",
                f"{int(it['score']) / UNIT:.2f}",
                money(it["earned_wei"] if told.stage == "closed" else it["expected_wei"]),
            )
            for it in shown["participants"]
        ),
    )


def join(
    pot: PotId,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your table, as you will give it.", show_default=False)
    ] = None,
    vault: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your vault: a copy of it is what you give.", show_default=False),
    ] = None,
    stays: Annotated[
        bool, typer.Option("--stays", help="With --vault, for a federated run: the data stays where it is.")
    ] = False,
    *,
    chain: options.Signed,
    yes: options.Yes = False,
    answer: options.Answer,
) -> None:
    """Take part with your rows: their digest goes on chain. Signed by the participant's owner key or one of its hot keys."""
    from clusterai.cli import pots, rewarding
    from clusterai.ledger.core import calls
    from clusterai.protocol.ids import hex0x
    from clusterai.protocol.money import show as money

    if (rows is None) == (vault is None) or (stays and vault is None):
        raise Failure("what do you give?", next="--rows FILE, or --vault DIR [--stays]", code=Exit.USAGE)
    at, signer = chain.at(), chain.signer()
    told = pots.one(at, pot)
    digest = rewarding.table_digest(rows) if rows else rewarding.vault_digest(vault or Path(), stays)
    if not answer.json:
        say.say(
            f"{money(told.pot.amount_wei)} among {len(told.pot.participants)}; the evaluator, {hex0x(told.pot.evaluator)}, "
            f"{'sees no rows, and scores what the run says' if stays else 'sees the rows that you give'}"
        )
    options.confirm("Join?", yes)
    sent = _send(at, signer, [calls.JoinPot(told.pot, digest)])
    answer.give(
        {"pot": hex0x(told.id), "rows": hex0x(digest), "transactions": sent}, f"joined with {hex0x(digest)}"
    )


def gather(
    pot: PotId,
    study: StudyPath,
    max_price: Annotated[str, typer.Option(metavar="AMOUNT", help="Most that one copy may cost.")] = "0",
    identity: IdentityFile = None,
    *,
    chain: options.Signed,
    answer: options.Answer,
) -> None:
    """Fetch the copies that vaults which joined grant you, beside the study. Run it again to go on after a stop."""
    from clusterai.cli import pots, rewarding

    at = chain.at()
    told = pots.one(at, pot)
    came = rewarding.gathered(
        told, study, rewarding.amount(max_price), identity, chain.data, chain.network, chain.key, say.say
    )
    if answer.json:
        say.emit(came)
        return
    for name, how in came.items():
        say.tell(f"{name}: {how}")


def score(
    pot: PotId,
    study: StudyPath,
    *,
    chain: options.Signed,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    answer: options.Answer,
) -> None:
    """Say what each participant's data was worth. Signed by the evaluator, who puts up a twentieth of the pot and has it back unless the panel overrules it."""
    from clusterai.cli import pots
    from clusterai.ledger.core import calls
    from clusterai.protocol.ids import Digest

    at, signer = chain.at(), chain.signer()
    told = pots.one(at, pot)
    found = _found(at, signer, told, study)
    if not answer.json:
        _shown(found)
    if dry_run:
        if answer.json:
            say.emit(_told(found, []))
        return
    options.confirm("Score?", yes)
    call = calls.ScorePot(told.pot, Digest(found.scores.evidence), found.scores.scores)
    bond_wei = pots.bond_wei(told.pot)
    sent = _send(at, signer, [calls.Approve(at.contracts.rewards, bond_wei), call])
    if answer.json:
        say.emit(_told(found, sent))
    else:
        say.tell(f"scored; whoever comes to others has {at.rules.window_s} s to contest them")


def check(pot: PotId, study: StudyPath, *, chain: options.Signed, answer: options.Answer) -> None:
    """Make a pot's scores again from the study's files; exit code 6 if others stand."""
    from clusterai.cli import pots
    from clusterai.protocol.ids import ZERO_DIGEST

    at, signer = chain.at(), chain.signer()
    told = pots.one(at, pot)
    found = _found(at, signer, told, study)
    if told.standing == ZERO_DIGEST:
        raise Failure("this pot isn't scored", next="clusterai data reward show", code=Exit.NOT_FOUND)
    if answer.json:
        say.emit({**_told(found, []), "same": found.digest == told.standing})
    else:
        _shown(found)
    if found.digest != told.standing:
        raise Failure(
            "these files make other scores than stand",
            "they, the order of joining or the evaluator's word differ",
            f"clusterai data reward contest {pot}",
            Exit.UNTRUE,
        )
    if not answer.json:
        say.tell("the scores that stand are right")


def contest(
    pot: PotId,
    *,
    chain: options.Signed,
    yes: options.Yes = False,
    answer: options.Answer,
) -> None:
    """Have the panel look: at scores that you found false, or where the evaluator kept silent. By a participant, or a member of the panel that is no party."""
    from clusterai.cli import pots
    from clusterai.ledger.core import calls
    from clusterai.protocol.ids import hex0x
    from clusterai.protocol.money import show as money

    at, signer = chain.at(), chain.signer()
    told = pots.one(at, pot)
    bond_wei = pots.bond_wei(told.pot)
    if not answer.json:
        say.say(f"it costs {money(bond_wei)}, unless the panel finds other scores or doesn't decide")
    options.confirm("Contest?", yes)
    sent = _send(at, signer, [calls.Approve(at.contracts.rewards, bond_wei), calls.ContestPot(told.pot)])
    answer.give({"pot": hex0x(told.id), "transactions": sent}, "contested; the panel votes")


def vote(
    pot: PotId,
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY.json", help="The files that you make the scores from.", show_default=False
        ),
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help="For no scores at all: the pot goes back to its payer.")
    ] = False,
    *,
    chain: OfPanel,
    answer: options.Answer,
) -> None:
    """Vote as a member of the panel for the scores that the study's files make."""
    from clusterai.cli import pots
    from clusterai.ledger.core import calls
    from clusterai.protocol.ids import ZERO_DIGEST, hex0x

    if (study is None) != none:
        raise Failure("vote for what?", next="STUDY.json, or --none", code=Exit.USAGE)
    at, signer = chain.at(), chain.signer("validator.hot.key")
    told = pots.one(at, pot)
    digest = ZERO_DIGEST if study is None else _found(at, signer, told, study).digest
    sent = _send(at, signer, [calls.VotePot(told.pot, digest)])
    same = digest == told.standing
    words = f"voted for {'the scores that stand' if same else 'other scores' if study else 'none'}"
    answer.give({"pot": hex0x(told.id), "digest": hex0x(digest), "same": same, "transactions": sent}, words)


def close(
    pot: PotId,
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY.json", help="Needed where the panel replaced the scores.", show_default=False
        ),
    ] = None,
    *,
    chain: options.Signed,
    answer: options.Answer,
) -> None:
    """Share a pot out by the scores that stand. Anyone may, once nobody can contest them any more."""
    from clusterai.cli import pots
    from clusterai.protocol.ids import checksummed
    from clusterai.protocol.money import show as money

    at, signer = chain.at(), chain.signer()
    told = pots.one(at, pot)
    mine = None if study is None else _found(at, signer, told, study).scores
    call = pots.closing(told, mine, pots.now_s(at), at.rules.window_s)
    _send(at, signer, [call], pots.gas_of(call))
    told = pots.one(at, pot)
    if answer.json:
        say.emit(pots.shown(told))
        return
    for who, wei in (*told.shares, *told.referrals):
        say.tell(f"{checksummed(who)} earned {money(wei)}")
    if told.refunded_wei:
        say.tell(f"{money(told.refunded_wei)} go back to the payer")
    say.say("→ clusterai data reward claim")


def claim(
    owner: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="ADDRESS",
            help="Whom to pay. Default: whom the key acts for.",
            show_default=False,
        ),
    ] = None,
    *,
    chain: options.Signed,
    answer: options.Answer,
) -> None:
    """Pay out what somebody is owed of all pots: shares, referrals, refunds, bonds. Anyone may; the money goes where it belongs."""
    from clusterai.cli import pots, rewarding
    from clusterai.ledger.core import calls
    from clusterai.protocol.ids import checksummed
    from clusterai.protocol.money import show as money

    at, signer = chain.at(), chain.signer()
    who = pots.owner_of(at, signer.address) if owner is None else rewarding.address_of(owner)
    owed_wei = pots.owed_wei(at, who)
    if not owed_wei:
        raise Failure(f"{checksummed(who)} is owed nothing", next="clusterai data reward list")
    sent = _send(at, signer, [calls.TakeOwed(who)])
    told = {"owner": checksummed(who), "amount_wei": owed_wei, "transactions": sent}
    answer.give(told, f"{money(owed_wei)} paid to {checksummed(who)}")


def _send(network: "Network", key: "Key", wanted: "list[Call]", gas: int | None = None) -> list[str]:
    from clusterai.cli.staking import carry_out

    return carry_out(network, key, wanted) if gas is None else carry_out(network, key, wanted, gas)


def _found(network: "Network", key: "Key", told: "Told", study: Path) -> "Found":
    from clusterai.cli import pots, rewarding

    terms = rewarding.terms(study, told.pot.amount_wei)
    return pots.found(told, terms, lambda: pots.beacon_of(network, key, told))


def _told(found: "Found", sent: list[str]) -> dict[str, object]:
    from clusterai.cli import rewarding

    return rewarding.told(found, sent)


def _shown(found: "Found") -> None:
    from clusterai.protocol.ids import checksummed

    names = [name for name in (found.contributors[0] if found.contributors else ()) if name != "owner"]
    say.table(
        ("owner", *(f"#{name.replace('_', ' ')}" for name in names)),
        [
            (it["owner"], *(f"{it[name]:.2f}" if isinstance(it[name], float) else it[name] for name in names))
            for it in found.contributors
        ],
    )
    for it in found.contributors:
        if it.get("value", 0) > 0 and it.get("doubt") and not it["score"]:
            say.tell(
                f"{it['owner']} earns nothing: its value is {it['value'] / it['doubt']:.1f} of its doubts above 0, with {it['own']} rows of its own; "
                "it counts above the study's `sure`, usually 3, and from 16 rows on. More held-out rows make values surer"
            )
    for it in found.left:
        say.tell(f"{checksummed(it.owner)} counts for nothing: {it.why}")
