"""The requester's side over vaults as they are served, without a network: plan, price, ask, check, join."""

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.cli.querying import asking
from clusterai.cli.querying.asking import Came, Planned, Question, ask, joined, plan_told, planned
from clusterai.cli.querying.vaults import Found, found
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.vaults import Operation
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import Done
from clusterai.vault.core.policy import MICRO
from clusterai.work.engine import TokenEvent
from clusterai.work.packed import bytes_of
from clusterai.work.query import KIND
from clusterai.work.query.adapters.hosting import host
from clusterai.work.query.core.estimate import Estimate
from clusterai.work.query.spec import decode_query
from tests.rooms.vault.nearby import Nearby
from tests.rooms.vault.vaultbed import OWNER, Bed

SQL = "select ward, count(*) as people, avg(age) as age from data group by ward"
QUESTION = Question(MICRO, sql=SQL, rows=10)


class InProcess(Nearby):
    """A gateway that is no process: it carries to vaults in this one, and does the orders of queries.

    Attributes:
        tampered: what it does to answers that it carries.
        seen: orders by their keys.
    """

    def __init__(self, *beds: Bed) -> None:
        super().__init__(*beds)
        self.tampered: Callable[[bytes], bytes] = bytes
        self.seen: list[str] = []

    async def order(
        self,
        about: Digest,
        kind: str,
        request: bytes,
        max_price_wei: int | None = None,
        provider: Address | None = None,
        key: str = "",
    ) -> Done:
        self.seen.append(key)
        spec = decode_query(request)
        bed = self.beds[Digest(spec.dataset)]
        engine = host(bed.vault).engine
        answer = tuple([it.token async for it in engine.submit(spec) if isinstance(it, TokenEvent)])
        usage = KIND.recount(spec, answer)
        price_wei = usage[0] * bed.vault.policy.milli_epsilon_wei + usage[1] * bed.vault.policy.use_wei
        return Done(self.tampered(bytes_of(answer)), None, price_wei, hex0x(provider or b""))


BEDS: list[Bed] = []


@pytest.fixture(autouse=True)
def closed_vaults() -> Generator[None]:
    """A vault is served once: what a test opened is closed behind it."""
    yield
    while BEDS:
        BEDS.pop().vault.close()


def bed_at(tmp_path: Path, who: Identity, grant: bool = True, owner: Address = OWNER) -> Bed:
    tmp_path.mkdir(exist_ok=True)
    bed = Bed(tmp_path, owner=owner)
    BEDS.append(bed)
    bed.identity = who
    if grant:
        bed.grant()
    return bed


@pytest.fixture
def who() -> Identity:
    return Identity.make()


def named(reach: InProcess, bed: Bed, wanted: str) -> Found:
    """As who has met no vault yet finds it."""
    return asyncio.run(found(reach, wanted, Names(bed.folder.root.parent / "me.known")))


def vault_of(reach: InProcess, bed: Bed) -> Found:
    return named(reach, bed, hex0x(bed.vault.dataset))


def plan_at(reach: InProcess, bed: Bed, who: Identity, question: Question = QUESTION) -> Planned:
    return asyncio.run(planned(reach, vault_of(reach, bed), question, who))


def asked_of(
    reach: InProcess,
    plans: list[Planned],
    who: Identity,
    question: Question = QUESTION,
    most_wei: int | None = None,
) -> tuple[list[Came], list[Failure]]:
    return asyncio.run(ask(reach, plans, question, who, most_wei))


def test_a_question_is_planned_before_it_is_paid(tmp_path: Path, who: Identity):
    """The plan names price, grant, noise and the error to expect, and spends nothing."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    plan = plan_at(reach, bed, who)
    assert plan.price_wei == 1000 * 1_000 + 50
    assert plan.grant is not None
    assert plan.outputs == ("ward", "people", "age")
    assert plan.error[1] == pytest.approx(2.9957 * 2 * 2, rel=1e-3)
    told = plan_told([plan], QUESTION)
    assert told["vaults"][0]["grant_left"] == 1.0
    assert not bed.vault.uses()


def test_a_name_finds_its_vault(tmp_path: Path, who: Identity):
    """Vaults are named by people; a name that nobody or more than one has is refused."""
    bed = bed_at(tmp_path, who)
    assert named(InProcess(bed), bed, "wards").dataset == bed.vault.dataset
    with pytest.raises(Failure, match="no data sets are called wordz"):
        named(InProcess(bed), bed, "wordz")


def test_an_answer_is_checked_and_shown(tmp_path: Path, who: Identity):
    """Asked, paid as planned, opened, compared with the log, estimated."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    plans = [plan_at(reach, bed, who)]
    came, failed = asked_of(reach, plans, who)
    assert not failed
    assert came[0].charged_wei == plans[0].price_wei
    names, table = joined(came)
    assert names == ("ward", "people", "age")
    assert [row[0] for row in table] == ["east", "west"]
    told = asking.answers_told(came, names, table)
    assert told["rows"][0]["people"]["low"] < told["rows"][0]["people"]["high"]
    assert reach.seen == [came[0].spec.digest().hex()]


def test_two_vaults_are_joined(tmp_path: Path, who: Identity):
    """Counts of two vaults add up, each from its own budget."""
    question = Question(MICRO, sql="select count(*) as rows")
    beds = [bed_at(tmp_path / "a", who), bed_at(tmp_path / "b", who, owner=Address(b"Q" * 20))]
    reach = InProcess(*beds)
    plans = [plan_at(reach, bed, who, question) for bed in beds]
    came, failed = asked_of(reach, plans, who, question)
    assert not failed
    single = [joined([it])[1][0][0] for it in came]
    both = joined(came)[1][0][0]
    assert isinstance(both, Estimate)
    assert both.value == sum(it.value for it in single if isinstance(it, Estimate) and it.value is not None)
    assert [len(bed.vault.uses()) for bed in beds] == [1, 1]


def test_what_one_vault_answered_isnt_lost_when_another_fails(tmp_path: Path, who: Identity):
    """A vault that refuses at the last moment is told beside the answers of the others."""
    beds = [bed_at(tmp_path / "a", who), bed_at(tmp_path / "b", who, owner=Address(b"Q" * 20))]
    reach = InProcess(*beds)
    plans = [plan_at(reach, bed, who) for bed in beds]
    beds[1].set_policy(msgspec.structs.replace(beds[1].vault.policy, total_epsilon_micro=1))
    beds[1].vault.tick()
    came, failed = asked_of(reach, plans, who)
    assert [it.vault.dataset for it in came] == [beds[0].vault.dataset]
    assert "refused: budget" in failed[0].what


def test_without_a_grant_nothing_is_asked(tmp_path: Path, who: Identity):
    """Who has no grant is told how to ask for one; who has too little left as well."""
    bed = bed_at(tmp_path, who, grant=False)
    reach = InProcess(bed)
    plan = plan_at(reach, bed, who)
    with pytest.raises(Failure, match="gave no grant"):
        asked_of(reach, [plan], who)
    bed.grant(epsilon_micro=MICRO // 2)
    plan = plan_at(reach, bed, who)
    assert (plan.grant, plan.most_left_micro) == (None, MICRO // 2)
    bed.grant(operation=Operation.CODE)
    assert plan_at(reach, bed, who).grant is None


def test_a_price_limit_holds(tmp_path: Path, who: Identity):
    """Nothing is asked where all of it would cost more than was said."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    plan = plan_at(reach, bed, who)
    assert plan.price_wei is not None
    with pytest.raises(Failure, match="above --max-price"):
        asked_of(reach, [plan], who, most_wei=plan.price_wei - 1)
    assert not bed.vault.uses()


def test_a_question_that_isnt_answered_says_what_to_write(tmp_path: Path, who: Identity):
    """The refusal of the language is told before anything is sent."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    with pytest.raises(Failure) as refusal:
        plan_at(reach, bed, who, Question(MICRO, sql="select note from data"))
    assert refusal.value.code == Exit.USAGE
    assert "rows never leave" in refusal.value.next


def flipped(raw: bytes) -> bytes:
    """The last byte of what is sealed, changed."""
    return raw[:-1] + bytes((raw[-1] ^ 1,))


def emptied(raw: bytes) -> bytes:
    return b""


def shortened(raw: bytes) -> bytes:
    return raw[:50]


@pytest.mark.parametrize("tampered", [flipped, emptied, shortened])
def test_a_gateway_that_changes_an_answer_is_noticed(
    tmp_path: Path, who: Identity, tampered: Callable[[bytes], bytes]
):
    """What doesn't open, or isn't what the vault logged, is told as untrue."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    plan = plan_at(reach, bed, who)
    reach.tampered = tampered
    with pytest.raises(Failure) as refusal:
        asked_of(reach, [plan], who)
    assert refusal.value.code == Exit.UNTRUE


def test_a_gateway_that_changes_a_card_is_noticed(tmp_path: Path, who: Identity):
    """Other bounds than the vault signed would make its answers mean something else."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    reach.cards = lambda card: card.replace(b'"high":120', b'"high":121')
    with pytest.raises(Failure, match="can't be believed"):
        vault_of(reach, bed)


def test_a_vault_that_adds_noise_of_another_budget_is_noticed(tmp_path: Path, who: Identity):
    """An answer whose noise isn't that of the ε that was paid for is told as false."""
    bed = bed_at(tmp_path, who)
    reach = InProcess(bed)
    plans = [plan_at(reach, bed, who)]
    came = asked_of(reach, plans, who)[0][0]
    cheap = msgspec.structs.replace(came.spec, epsilon_micro=MICRO // 2)
    with pytest.raises(Failure, match="didn't answer this query"):
        asking.checked(came.vault, cheap, canonical.encode(came.answer), who, 0, "")
