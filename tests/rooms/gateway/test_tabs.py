"""Tabs: set aside before anything is begun, charged once per item, given back at the end."""

from hypothesis import given
from hypothesis import strategies as st

from clusterai.gateway.core.book import Book
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, ItemPaid, OpenTab, TabIs
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest

ACCOUNT = Digest(b"a" * 32)
FUNDED = 1_000


def name(number: int) -> Digest:
    return Digest(number.to_bytes(32))


def book() -> Book:
    made = Book(Address(b"g" * 20), lambda _: ZERO_DIGEST, 60)
    made.account(ACCOUNT).funded_wei = FUNDED
    return made


def ask(at: Book, event: OpenTab | ChargeTab | CloseTab) -> TabIs | ItemPaid | None:
    record, answer = at.tabs.asked(event, at)
    if record is not None:
        at.apply(record)
    return answer


def test_a_tab_holds_charges_and_gives_back() -> None:
    """What was set aside and not spent is credit again."""
    one = book()
    assert ask(one, OpenTab(name(1), ACCOUNT, 600)) == TabIs(name(1), True, FUNDED)
    assert one.credit_wei(ACCOUNT) == 400
    ask(one, ChargeTab(name(1), name(7), 250))
    ask(one, CloseTab(name(1)))
    assert one.credit_wei(ACCOUNT) == 750


def test_everything_asked_again_changes_nothing() -> None:
    """Opening, charging and closing are each done once, whatever is repeated."""
    one = book()
    for _ in range(3):
        ask(one, OpenTab(name(1), ACCOUNT, 600))
        ask(one, ChargeTab(name(1), name(7), 250))
    assert one.credit_wei(ACCOUNT) == 400
    for _ in range(3):
        ask(one, CloseTab(name(1)))
        assert ask(one, ChargeTab(name(1), name(7), 250)) == ItemPaid(name(1), name(7))
    assert one.credit_wei(ACCOUNT) == 750


def test_an_account_never_owes() -> None:
    """A tab beyond the credit isn't opened, and the answer says what there is."""
    one = book()
    assert ask(one, OpenTab(name(1), ACCOUNT, FUNDED + 1)) == TabIs(name(1), False, FUNDED)
    assert one.credit_wei(ACCOUNT) == FUNDED


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("open", "charge", "close")),
            st.integers(0, 3),
            st.integers(0, 5),
            st.integers(0, 400),
        ),
        max_size=40,
    )
)
def test_any_history_conserves_money_and_survives_a_snapshot(moves: list[tuple[str, int, int, int]]) -> None:
    """Credit, tabs and what was spent always add up, and a snapshot restores to the same."""
    one = book()
    for move, tab, item, amount in moves:
        match move:
            case "open":
                ask(one, OpenTab(name(tab), ACCOUNT, amount))
            case "charge":
                found = one.tabs.open.get(name(tab))
                left = 0 if found is None else found.amount_wei - found.spent_wei
                ask(one, ChargeTab(name(tab), name(item), min(amount, left)))
            case _:
                ask(one, CloseTab(name(tab)))
        account = one.account(ACCOUNT)
        assert one.credit_wei(ACCOUNT) + account.tabbed_wei == FUNDED
        assert one.credit_wei(ACCOUNT) >= 0
        assert account.tabbed_wei >= sum(it.amount_wei for it in one.tabs.open.values())
    other = Book(Address(b"g" * 20), lambda _: ZERO_DIGEST, 60)
    for record in one.snapshot():
        other.apply(record)
    assert other.snapshot() == one.snapshot()
