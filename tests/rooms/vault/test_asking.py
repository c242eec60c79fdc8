"""A requester asks for access: what is refused before it is sent, what is told, and what it sees of its grants."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.cli import asking, keeping
from clusterai.cli import main as cli
from clusterai.cli.asking import Wish
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.vaults import Operation, subject
from clusterai.sdk.identity import BadIdentity, Identity
from clusterai.sdk.vaults import Done
from clusterai.vault.core.policy import MICRO
from clusterai.work.engine import TokenEvent
from clusterai.work.packed import bytes_of
from clusterai.work.query.adapters.hosting import host
from clusterai.work.query.spec import decode_query
from tests.rooms.vault.nearby import Nearby
from tests.rooms.vault.vaultbed import POLICY, Bed


class Reach(Nearby):
    """It does the orders of queries, too."""

    async def order(
        self,
        about: Digest,
        kind: str,
        request: bytes,
        max_price_wei: int | None = None,
        provider: Address | None = None,
        key: str = "",
    ) -> Done:
        [bed] = self.beds.values()
        assert about == subject(bed.vault.dataset, kind)
        engine = host(bed.vault).engine
        tokens = [it.token async for it in engine.submit(decode_query(request)) if isinstance(it, TokenEvent)]
        await engine.close()
        return Done(bytes_of(tuple(tokens)), None, 50, "0x")


def wish(**changes: Any) -> Wish:
    told: dict[str, Any] = {
        "operation": int(Operation.QUERY),
        "purpose": "to count beds",
        "epsilon_micro": MICRO,
        "uses": 10,
        "price_wei": 10**9,
        "days": 30,
        "code": b"",
    }
    return Wish(**{**told, **changes})


@pytest.fixture
def now(bed: Bed) -> None:
    """Requests expire by this machine's clock: the vault's is the same."""
    import time

    bed.now_s = time.time()
    bed.restart()


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path / "me.known")


@pytest.mark.usefixtures("now")
def test_asking_and_seeing_what_came_of_it(bed: Bed, names: Names, tmp_path: Path) -> None:
    """By its name: asked, then granted; the note of whom was asked is beside the identity."""
    reach = Reach(bed)

    async def run() -> None:
        listed, facts = await asking.found(reach, "wards", names)
        assert asking.refused_anyway(facts, wish()) is None
        asked = await asking.request(reach, listed, bed.identity, wish())
        assert (asked.state, asked.grant, asked.epsilon) == ("asked", None, 1.0)
        bed.vault.approve(bed.vault.entries()[0].request)
        [now] = await asking.standings(reach, listed, bed.identity)
        assert (now.state, now.use_wei, now.milli_epsilon_wei) == ("granted", 50, 1_000)
        assert await asking.standings(reach, listed, Identity.make()) == []
        notes = tmp_path / "asked"
        notes.write_text(f"{hex0x(listed.dataset)}\nnonsense of nobody\n")
        assert asking.remembered(notes) == {listed.dataset: ""}
        for _ in range(2):
            asking.remember(notes, listed.dataset, listed.name)
        assert asking.remembered(notes) == {listed.dataset: "wards"}
        assert len(notes.read_text().splitlines()) == 3

    asyncio.run(run())


@pytest.mark.usefixtures("now")
def test_a_second_request_over_budget_says_why_it_waits(bed: Bed, names: Names) -> None:
    """Joint questions that the policy grants without its owner: the first is, the second is told what holds it up."""
    policy = msgspec.structs.replace(
        POLICY, auto_operations=(Operation.JOINT,), auto_epsilon_micro=2 * MICRO, requester_epsilon_micro=3 * MICRO
    )  # fmt: skip
    bed.set_policy(policy)
    bed.restart()
    reach = Reach(bed)

    async def run() -> None:
        listed, _ = await asking.found(reach, "wards", names)
        wanted = wish(operation=Operation.JOINT, epsilon_micro=2 * MICRO)
        first = await asking.request(reach, listed, bed.identity, wanted)
        second = await asking.request(reach, listed, bed.identity, wanted)
        assert (first.state, first.note) == ("approved", "by the policy")
        assert second.state == "asked"
        assert second.note.startswith(
            "ε 2 is asked, and of the ε 3 left this requester's living grants hold 2"
        )
        assert [it.note for it in await asking.standings(reach, listed, bed.identity)][1] == second.note
        listed_rows = keeping.rows(keeping.book(bed.folder), bed.now_s)
        assert [it.note for it in listed_rows] == ["by the policy", second.note]

    asyncio.run(run())


@pytest.mark.usefixtures("now")
def test_what_the_published_policy_refuses_isnt_sent(bed: Bed, names: Names) -> None:
    """The failure names what would pass."""

    async def run() -> None:
        _, facts = await asking.found(Reach(bed), hex0x(bed.vault.dataset), names)
        no = asking.refused_anyway(facts, wish(epsilon_micro=9 * MICRO))
        assert no is not None
        assert no.next == "--epsilon 2"
        with pytest.raises(Failure, match="no data sets are called other"):
            await asking.found(Reach(bed), "other", names)

    asyncio.run(run())


@pytest.mark.usefixtures("now")
def test_a_refusal_of_the_vault_is_told_in_its_words(bed: Bed, names: Names) -> None:
    """A price below what is asked."""

    async def run() -> None:
        listed, _ = await asking.found(Reach(bed), "wards", names)
        with pytest.raises(Failure, match="is asked"):
            await asking.request(Reach(bed), listed, bed.identity, wish(price_wei=1))

    asyncio.run(run())


@pytest.mark.usefixtures("now")
def test_a_program_is_reviewed(bed: Bed, names: Names) -> None:
    """Run, told to wait, and got once the owner let it go; another program has no grant."""
    reach = Reach(bed)
    program = b"open('/job/out/result.json', 'w').write('the mean is 12.5')\n"

    async def run() -> None:
        listed, _ = await asking.found(reach, "wards", names)
        told = wish(operation=int(Operation.REVIEW), code=program, epsilon_micro=0)
        await asking.request(reach, listed, bed.identity, told)
        bed.vault.approve(bed.vault.entries()[0].request)
        ran = await asking.ran(reach, listed, bed.identity, program, (), 1, None)
        order = read_digest(ran.order)
        with pytest.raises(Failure, match="hasn't let it go yet"):
            await asking.result(reach, listed, bed.identity, order)
        bed.vault.review.release(order)
        assert await asking.result(reach, listed, bed.identity, order) == b"the mean is 12.5"
        with pytest.raises(Failure, match="gave no grant for this program"):
            await asking.ran(reach, listed, bed.identity, b"print(rows)", (), 1, None)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--operation", "steal"], "it is query, code"),
        (["--operation", "code"], "code needs --program"),
        (["--program", "x.py"], "query takes no --program"),
        (["--price", "a lot"], "An amount is a decimal number"),
        (["--operation", "code", "--program", "/nowhere.py"], "/nowhere.py can't be read"),
    ],
)
def test_a_wish_that_cant_be_asked_says_why(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any gateway is looked for."""
    given = ["data", "request", "wards", "--purpose", "p", "--identity", str(tmp_path / "me.json")]
    assert cli.run([*given, *words]) in (Exit.USAGE, Exit.NOT_FOUND)
    assert why in capsys.readouterr().err


def test_an_identity_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    """The same after a restart; refused where others may read it, or it is something else."""
    path = tmp_path / "deep" / "me.json"
    made = Identity.load_or_make(path)
    again = Identity.load_or_make(path)
    assert (made.address, made.seal_to) == (again.address, again.seal_to)
    with pytest.raises(FileExistsError):
        Identity.make().save(path)
    path.chmod(0o644)
    with pytest.raises(BadIdentity, match="chmod 600"):
        Identity.load(path)
    path.chmod(0o600)
    path.write_text('{"sign": "00", "seal": ""}')
    with pytest.raises(BadIdentity, match="no identity"):
        Identity.load(path)
