"""Whose vault a name means: strangers who list the same, names that change hands, runs that go on."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from clusterai.cli import main as cli
from clusterai.cli import training, vaultreach
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.cli.vaultreach import listed_as
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import dataset_id, subject
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import ApiError, Done, Listed, read
from clusterai.sdk.vaultshapes import DataAway, Dataset
from clusterai.work.training.adapters.parties import Lost
from clusterai.work.training.core.lineage import Source
from tests.rooms.vaults.listings import listed

NETWORK = network_domain(31415, Address(b"R" * 20))
NORTH, STRANGER = Key(b"\x01" * 32), Key(b"\x02" * 32)
VAULT = {"clusterai": {"seal_to": "0x" + "07" * 32}}
T = TypeVar("T")


class Gateway:
    """It shows what anyone lists, and carries nothing."""

    def __init__(self, domain: Domain = NETWORK) -> None:
        self._domain = domain
        self.shown: dict[Digest, Listed] = {}
        self.unlinked: dict[Digest, int] = {}
        """Of these one question finds nobody; of `lost`, all do."""
        self.lost: set[Digest] = set()

    def lists(self, key: Key, name: str, **card: Any) -> Digest:
        about: dict[str, Any] = card or VAULT
        said = listed(key, self._domain, name, **about)
        found = read(
            Dataset(
                dataset="",
                owner="",
                serial=1,
                snapshot="",
                policy="",
                card=msgspec.Raw(said.card),
                listing=base64.b64encode(said.listing).decode(),
                signature=hex0x(said.signature),
                holders=(),
                serves=(),
            ),
            self._domain,
        )
        self.shown[found.dataset] = found
        return found.dataset

    async def network(self) -> Domain:
        return self._domain

    async def find(self, text: str = "", owner: Address | None = None) -> AsyncIterator[Listed]:
        for it in self.shown.values():
            if it.dataset in self.lost or it.dataset in self.unlinked:
                continue
            if text in it.name and owner in (None, it.listing.owner):
                yield it

    async def dataset(self, dataset: Digest) -> Listed:
        if self.unlinked.pop(dataset, 0):
            raise ApiError(404, "vault_away", "last seen 5 s ago")
        if dataset in self.lost:
            raise ApiError(404, "vault_away", "last seen 50 s ago")
        if dataset not in self.shown:
            raise ApiError(404, "not_found", "no linked provider has this data set")
        return self.shown[dataset]

    async def away(self, name: str) -> tuple[DataAway, ...]:
        gone = [self.shown[it] for it in (*self.unlinked, *self.lost)]
        return tuple(
            DataAway(dataset=hex0x(it.dataset), owner=hex0x(it.listing.owner), name=name, ago_s=5)
            for it in gone
            if it.name == name
        )

    async def ask(self, identity: Identity, data: Listed, kind: str, body: bytes) -> bytes:
        raise AssertionError("nothing is sent")

    async def order(
        self,
        about: Digest,
        kind: str,
        request: bytes,
        max_price_wei: int | None = None,
        provider: Address | None = None,
        key: str = "",
    ) -> Done:
        raise AssertionError("nothing is ordered")


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path / "me.known")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_a_strangers_vault_of_a_known_name_is_told_of_and_never_taken(
    names: Names, capsys: pytest.CaptureFixture[str]
):
    """A villain waits until others know a name, and lists a vault under it."""
    gateway = Gateway()
    mine = gateway.lists(NORTH, "north")
    assert run(listed_as(gateway, "north", names)).dataset == mine
    assert "from now on" in capsys.readouterr().err
    gateway.lists(STRANGER, "north")
    assert run(listed_as(gateway, "North", names)).dataset == mine
    assert checksummed(STRANGER.address) in capsys.readouterr().err


def test_a_vault_that_lost_its_link_for_a_moment_is_waited_for(
    names: Names, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Met for the first time or known: the command waits, and says when it was last seen if it doesn't come back."""
    monkeypatch.setattr(vaultreach, "POLL_S", 0.0)
    gateway = Gateway()
    mine = gateway.lists(NORTH, "north")
    for _ in range(2):
        gateway.unlinked[mine] = 1
        assert run(listed_as(gateway, "north", names)).dataset == mine
        assert "waiting for north's vault: last seen 5 s ago" in capsys.readouterr().err
    gateway.lost.add(mine)
    monkeypatch.setattr(vaultreach, "AWAY_S", 0.0)
    gateway.lists(STRANGER, "north")
    with pytest.raises(Failure, match="north's vault isn't linked at the moment") as gone:
        run(listed_as(gateway, "north", names))
    assert (gone.value.why, gone.value.code) == ("last seen 50 s ago", Exit.NOT_FOUND)


def test_a_name_that_changed_hands_is_refused_until_it_is_forgotten(
    names: Names, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Nothing is sent to whoever has it now; by owner and name, or when the old meaning is let go, it can be meant."""
    gateway = Gateway()
    mine = gateway.lists(NORTH, "north")
    run(listed_as(gateway, "north", names))
    del gateway.shown[mine]
    with pytest.raises(Failure, match="isn't listed now") as gone:
        run(listed_as(gateway, "north", names))
    assert gone.value.code == Exit.NOT_FOUND
    theirs = gateway.lists(STRANGER, "north")
    with pytest.raises(Failure, match="CHANGED HANDS") as changed:
        run(listed_as(gateway, "north", names))
    assert changed.value.code == Exit.UNTRUE
    assert checksummed(NORTH.address) in changed.value.why
    spelt = f"{checksummed(STRANGER.address)}/north"
    assert spelt in changed.value.next
    assert run(listed_as(gateway, spelt, names)).dataset == theirs
    assert names.owner(NETWORK, "north") == NORTH.address
    words = ["data", "known", "--identity", str(tmp_path / "me.json")]
    capsys.readouterr()
    assert cli.run([*words, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["known"][0]["owner"] == hex0x(NORTH.address)
    assert cli.run([*words, "--forget", "north"]) == Exit.OK
    assert cli.run([*words, "--forget", "north"]) == Exit.NOT_FOUND
    assert run(listed_as(gateway, "north", names)).dataset == theirs


def test_a_name_that_several_have_is_refused_with_all_of_them(names: Names):
    """Before it is known: each is named as it can be typed. Files of that name aren't meant where vaults have it."""
    gateway = Gateway()
    gateway.lists(NORTH, "north")
    gateway.lists(STRANGER, "north")
    with pytest.raises(Failure, match="2 data sets are called north") as several:
        run(listed_as(gateway, "north", names))
    for key in (NORTH, STRANGER):
        assert f"{checksummed(key.address)}/north" in several.value.why
    assert names.all() == []
    vault = gateway.lists(NORTH, "south")
    gateway.lists(STRANGER, "south", license="CC-BY-4.0")
    assert run(listed_as(gateway, "south", names)).dataset == vault


def test_a_vault_is_named_by_its_owner_and_by_its_id_too(names: Names):
    """An owner alone where it has one; none of it makes a name known."""
    gateway = Gateway()
    mine = gateway.lists(NORTH, "north")
    for wanted in (hex0x(mine), hex0x(NORTH.address), f"{checksummed(NORTH.address)}/north"):
        assert run(listed_as(gateway, wanted, names)).dataset == mine
    gateway.lists(NORTH, "south")
    with pytest.raises(Failure, match="2 data sets are of"):
        run(listed_as(gateway, hex0x(NORTH.address), names))
    with pytest.raises(Failure, match="names no vault"):
        run(listed_as(gateway, "0xnorth", names))
    with pytest.raises(ApiError):
        run(listed_as(gateway, f"{hex0x(STRANGER.address)}/north", names))
    assert names.all() == []


def test_a_network_that_is_begun_anew_has_names_of_its_own(tmp_path: Path):
    """Of another genesis, or of other contracts."""
    first, second = Names(tmp_path / "known", "0x01"), Names(tmp_path / "known", "0x02")
    first.learn(NETWORK, "north", NORTH.address)
    assert second.owner(NETWORK, "north") is None
    second.learn(NETWORK, "north", STRANGER.address)
    assert first.owner(NETWORK, "north") == NORTH.address
    bare = Names(tmp_path / "known")
    bare.learn(NETWORK, "north", NORTH.address)
    assert bare.owner(network_domain(31415, Address(b"S" * 20)), "north") is None


def test_a_damaged_book_forgets_nobody(tmp_path: Path):
    """Else the next stranger would be met first."""
    (tmp_path / "known").write_text('{"network": "x", "name": "north"}\n')
    with pytest.raises(Failure, match="can't be read"):
        Names(tmp_path / "known").owner(NETWORK, "north")


# --- runs that go on ---


def source(key: Key, name: str) -> Source:
    dataset = dataset_id(key.address, name)
    return Source(name, dataset, bytes(32), subject(dataset, "training"), bytes(20), bytes(32))


def test_a_run_goes_on_with_the_vaults_that_it_began_with(names: Names):
    """Whatever their names mean by now; one that isn't listed has dropped out, and others are refused."""
    sources = (source(NORTH, "north"), source(NORTH, "south"))
    folder = Path("run")
    training.taken_up(sources, ["south", f"{hex0x(NORTH.address)}/north"], folder)
    training.taken_up(sources, ["north", hex0x(Digest(sources[1].dataset))], folder)
    for wrong in (["north"], ["north", "north"], ["north", "east"], ["north", "south", "east"]):
        with pytest.raises(Failure, match="other vaults"):
            training.taken_up(sources, wrong, folder)
    with pytest.raises(Failure, match="other vaults"):
        training.taken_up(sources, ["north", f"{hex0x(STRANGER.address)}/south"], folder)
    gateway = Gateway()
    mine = gateway.lists(NORTH, "north")
    for name in ("north", "south"):
        gateway.lists(STRANGER, name)

    def choose(*_: object) -> Digest:
        raise AssertionError("it has its grants")

    async def main() -> None:
        parties = await training.gathered(
            gateway, ["north", "south"], names, Identity.make(), sources, choose
        )
        assert [bytes(it.subject) for it in parties] == [it.subject for it in sources]
        assert parties[0].subject == subject(mine, "training")
        with pytest.raises(Lost, match="isn't listed now"):
            await parties[1].call(b"")

    run(main())
