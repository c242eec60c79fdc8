"""`clusterai vault inbox`, `approve` … `withhold`: the owner's desk: who asks for what, what was used, and what may leave."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.commands.vaultcare import Folder
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.cli.keeping import Row
    from clusterai.vault.adapters.folder import Outcome, VaultFolder
    from clusterai.vault.core.book import VaultBook

Request = Annotated[
    str, typer.Argument(metavar="REQUEST", help="Its id, or how it begins.", show_default=False)
]
Note = Annotated[str, typer.Option(help="A word to the requester.", show_default=False)]
Order = Annotated[str, typer.Argument(metavar="ORDER", help="Its id, or how it begins.", show_default=False)]


def inbox(
    folder: Folder,
    every: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
    code: Annotated[
        str | None,
        typer.Option(
            metavar="REQUEST",
            help="Print the program that came with this request, and nothing else.",
            show_default=False,
        ),
    ] = None,
    *,
    answer: options.Answer,
) -> None:
    """List who asks for what: operation, ε, price, purpose, program. Read a program with --code."""
    import time

    from clusterai.cli import keeping

    it = keeping.opened(folder)
    book = keeping.book(it)
    listed = keeping.rows(book, time.time())
    if code is not None:
        row = keeping.one(it, code, "request")
        _program(book, row)
        return
    shown = listed if every else [row for row in listed if row.state == "asked"]
    if answer.json:
        say.emit({"requests": shown})
        return
    for row in shown:
        _tell(row)
    if not shown:
        say.tell("nobody waits" if not every else "nobody has asked yet")
    elif not every:
        say.say(
            f"→ clusterai vault approve {folder} {shown[0].request[2:10]}     → … deny …     → … inbox {folder} --code …"
        )


def _program(book: "VaultBook", row: "Row") -> None:
    from clusterai.cli import keeping
    from clusterai.protocol.ids import digest

    code = book.entries[digest(row.request)].code
    if not code:
        raise Failure(
            f"no program is kept for {row.request}",
            "SQL brings none, and a denied request's isn't kept",
            code=Exit.NOT_FOUND,
        )
    say.stdout().write(keeping.printable(code))


def _tell(row: "Row") -> None:
    import datetime

    from rich.markup import escape

    from clusterai.protocol.money import show as money

    until = datetime.datetime.fromtimestamp(row.expires_s, datetime.UTC).date().isoformat()
    say.tell(
        f"[bold]{row.request[2:10]}[/] {row.state}{' by policy' if row.automatic else ''}  from {row.requester}"
    )
    if row.grant is not None:
        say.tell(f"  grant    {row.grant}")
    say.tell(
        f"  wants    {row.operation}: ε {row.epsilon:g} in {row.uses} uses until {until}, at most {money(row.price_wei)} a use"
    )
    if row.used:
        say.tell(f"  used     ε {row.spent_epsilon:g} in {row.used} uses")
    if row.code is not None:
        say.tell(f"  program  {row.code}, {row.code_bytes} bytes")
    words = "".join(it if it.isprintable() else " " for it in row.purpose)
    say.tell(f"  purpose  {escape(words)}")
    if row.note:
        say.tell(f"  note     {escape(row.note)}")


def approve(
    folder: Folder,
    request: Request,
    note: Note = "",
    yes: options.Yes = False,
    *,
    answer: options.Answer,
) -> None:
    """Grant a request, as it was asked. Read its program first: what you approve runs on the data."""
    _decide(folder, request, "approve", note, yes, answer)


def deny(
    folder: Folder,
    request: Request,
    note: Note = "",
    yes: options.Yes = False,
    *,
    answer: options.Answer,
) -> None:
    """Deny a request."""
    _decide(folder, request, "deny", note, yes, answer)


def _decide(folder: Path, request: str, act: str, note: str, yes: bool, answer: options.Answer) -> None:

    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import Command

    it = keeping.opened(folder)
    row = keeping.one(it, request, "request")
    if not yes:
        _tell(row)
        options.confirm("Approve it?" if act == "approve" else "Deny it?", yes)
    outcome = keeping.command(it, Command("approve" if act == "approve" else "deny", row.request, note=note))
    _told(it, folder, row.request, outcome, answer)


def revoke(
    folder: Folder,
    grant: Annotated[
        str, typer.Argument(metavar="GRANT", help="Its id, or how it begins.", show_default=False)
    ],
    reason: Annotated[str, typer.Option(help="asked, terms, policy, consent, key or law.")] = "policy",
    yes: options.Yes = False,
    *,
    answer: options.Answer,
) -> None:
    """End a grant now. What is stored gets new keys; what its holder has learnt or copied, it has."""

    from clusterai.cli import keeping
    from clusterai.protocol.vaults import Revoked
    from clusterai.vault.adapters.folder import Command

    known = {it.name.lower(): int(it) for it in Revoked if it}
    if reason not in known:
        raise Failure(f"--reason {reason}", f"it is one of {', '.join(known)}", code=Exit.USAGE)
    it = keeping.opened(folder)
    row = keeping.one(it, grant, "grant")
    assert row.grant is not None
    if not yes:
        _tell(row)
        options.confirm("Revoke it?", yes)
    outcome = keeping.command(it, Command("revoke", row.grant, reason=known[reason]))
    _told(it, folder, row.grant, outcome, answer)


def _told(
    it: "VaultFolder", folder: Path, target: str, outcome: "Outcome | None", answer: options.Answer
) -> None:
    state = "left" if outcome is None else outcome.state
    if answer.json:
        say.emit({"target": target, "state": state})
    elif outcome is None:
        say.tell(f"nobody serves the vault in {it.root} now: it is done when somebody does")
        say.tell(f"  → clusterai vault serve {folder}")
    else:
        waits = {"approved": ": on its way to the chain"}
        say.tell(f"{state}{waits.get(state, '')}")


def uses(folder: Folder, *, answer: options.Answer) -> None:
    """List every use of the data: by whom, how much ε it spent, what it was asked to pay, what left."""
    import datetime

    from clusterai.cli import keeping
    from clusterai.protocol.money import show as money

    it = keeping.opened(folder)
    book = keeping.book(it)
    found = keeping.uses(book)
    if answer.json:
        say.emit({"uses": found, "epsilon_spent": book.total_spent_micro / 1e6, "anchored": book.anchored})
        return
    say.table(
        ("#", "when", "requester", "grant", "#ε", "#asks", "left the vault"),
        [
            (
                "open" if row.index is None else row.index,
                datetime.datetime.fromtimestamp(row.at_s, datetime.UTC).isoformat(" ", "seconds")[:19],
                row.requester[:12] + "…",
                row.grant[2:10],
                f"{row.epsilon:g}",
                money(row.price_wei),
                row.result[:12] + "…" if row.result else "nothing",
            )
            for row in found
        ],
    )
    say.tell(f"ε {book.total_spent_micro / 1e6:g} of {book.budget_micro / 1e6:g} spent, for ever")
    say.say("what was paid: clusterai node earnings (under `clusterai up`: --config DATA/node-1/config.json)")


def replay(
    folder: Folder,
    query: Annotated[
        Path,
        typer.Option(metavar="FILE", help="What `clusterai query --json` wrote.", show_default=False),
    ],
    chain: options.Chain,
    *,
    answer: options.Answer,
) -> int:
    """Compute a query's answer, or a share of a joint one, again from rows and noise key. Exit code 6: it differs from what the vault signed or
    logged, or the key isn't the one that the chain has."""
    import msgspec

    from clusterai.cli import keeping
    from clusterai.cli.querying import replaying

    vault, asked = keeping.opened(folder), replaying.asked_in(query)
    done = replaying.replay(vault, asked, replaying.known_of(chain.at(), asked))
    if answer.json:
        queries = [{**msgspec.to_builtins(it), "wrong": it.wrong} for it in done]
        say.emit({"vault": vault.named.name, "noise_key": "as on chain", "queries": queries})
    else:
        say.table(
            ("query", "kind", "again", "signed", "logged", ""),
            [
                (
                    it.query[:18],
                    it.kind,
                    it.result[:18],
                    it.signed[:18] if it.signed else "-",
                    it.logged[:18] if it.logged else "-",
                    it.wrong or ("the same bytes as then" if it.answered else "never answered"),
                )
                for it in done
            ],
        )
        say.say("its noise key is the one that the chain has")
    for it in done:
        if it.wrong:
            say.complain(it.complaint(vault.named.name))
    if any(it.wrong for it in done):
        return Exit.UNTRUE
    return Exit.OK if all(it.answered for it in done) else Exit.NOT_FOUND


def outputs(
    folder: Folder,
    read: Annotated[
        str | None,
        typer.Option(metavar="ORDER", help="Print this one, and nothing else.", show_default=False),
    ] = None,
    *,
    answer: options.Answer,
) -> None:
    """List what programs left for review, and what disclosure control found in it. Nothing of it leaves before you let it."""
    from clusterai.cli import keeping

    it = keeping.opened(folder)
    if read is not None:
        say.stdout().write(keeping.printable(keeping.output(it, read)[1]))
        return
    found = [lying for lying, _ in keeping.outputs(it)]
    if answer.json:
        say.emit({"outputs": found})
        return
    say.table(
        ("order", "state", "requester", "#bytes", "found in it"),
        [
            (
                lying.order[2:10],
                lying.state,
                lying.requester[:12] + "…",
                lying.bytes,
                "; ".join(f"{one.code}: {one.detail}" for one in lying.findings) or "-",
            )
            for lying in found
        ],
    )
    if any(lying.state == "held" for lying in found):
        say.say(f"→ clusterai vault outputs {folder} --read …     → … release …     → … withhold …")


def release(
    folder: Folder,
    order: Order,
    yes: options.Yes = False,
    *,
    answer: options.Answer,
) -> None:
    """Let an output go to who made it, once you have read it. Private texts as they are don't pass; numbers are for you to judge. It is a use of its own in the log."""
    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import Command

    it = keeping.opened(folder)
    lying, content = keeping.output(it, order)
    if not yes:
        say.stdout().write(keeping.printable(content))
        for one in lying.findings:
            say.say(f"[yellow]{one.code}[/]: {one.detail}")
        options.confirm("Let it go?", yes)
    _told(it, folder, lying.order, keeping.command(it, Command("release", lying.order)), answer)


def withhold(
    folder: Folder,
    order: Order,
    note: Note = "",
    *,
    answer: options.Answer,
) -> None:
    """Delete an output that must not leave; its requester is told so."""
    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import Command

    it = keeping.opened(folder)
    lying, _ = keeping.output(it, order)
    _told(it, folder, lying.order, keeping.command(it, Command("withhold", lying.order, note=note)), answer)


COMMANDS = (inbox, approve, deny, revoke, uses, outputs, release, withhold, replay)
