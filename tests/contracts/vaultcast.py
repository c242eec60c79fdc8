"""Vaults among the cast: ann's hospital and bob's clinic, what they grant, the logs that they keep, and how they could cheat."""

from typing import Any

import msgspec
from eth_hash.auto import keccak

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import AccessGranted, Event, LogAnchored
from clusterai.ledger.core.twin.state import UINT256_MAX
from clusterai.ledger.core.vault_calls import DatasetTerms, Piece, Shown
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Grant, Operation, Use, dataset_id, log_proof, log_root, name_digest
from tests.contracts.cast import AT, EVERYONE, HOTS, KEYS, NETWORK_DOMAIN, OWNERS, RULES, Pair

BUDGET = 10_000_000
PRICE = 700
WINDOW_S = RULES.window_s
VAULTS = {"ann": "hospital", "bob": "clinic"}
REQUESTERS = ("payer", "stranger", "gate")


def digest(text: str) -> Digest:
    return Digest(keccak(text.encode()))


def dataset(who: str) -> Digest:
    return dataset_id(OWNERS[who].address, VAULTS[who])


def terms(serial: int = 1, **changes: Any) -> DatasetTerms:
    fields: dict[str, Any] = {
        "card": digest("card"),
        "snapshot": digest("snapshot"),
        "policy": digest("policy"),
        "noise_commit": digest("noise"),
        "serial": serial,
        "budget_micro": BUDGET,
        "price_wei": PRICE,
        "royalty_bps": 250,
    }
    return DatasetTerms(**{**fields, **changes})


def grant(who: str, requester: str, name: str = "wish", expires_s: int = 2**39, **changes: Any) -> Grant:
    fields: dict[str, Any] = {
        "dataset": dataset(who),
        "request": digest(name),
        "requester": EVERYONE[requester].address,
        "operation": int(Operation.QUERY),
        "code": ZERO_DIGEST,
        "epsilon_micro": 2_000_000,
        "uses": 10,
        "expires_s": expires_s,
        "key_epoch": 0,
    }
    return Grant(**{**fields, **changes})


class Log:
    """A dataset's uses as its vault keeps them: honest unless one is put in by hand."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.uses: list[Use] = []

    def use(self, of: Grant, epsilon_micro: int, at_s: int, **changes: Any) -> Use:
        """Close one more use."""
        spent = [one.epsilon_micro for one in self.uses if one.grant == of.struct()]
        total = sum(one.epsilon_micro for one in self.uses) + epsilon_micro
        fields: dict[str, Any] = {
            "dataset": of.dataset,
            "index": len(self.uses),
            "grant": of.struct(),
            "requester": of.requester,
            "order": digest(f"order {len(self.uses)}"),
            "epsilon_micro": epsilon_micro,
            "grant_spent_micro": sum(spent) + epsilon_micro,
            "total_spent_micro": total,
            "result": digest(f"result {len(self.uses)}"),
            "at_s": at_s,
        }
        self.uses.append(Use(**{**fields, **changes}))
        return self.uses[-1]

    @property
    def leaves(self) -> list[Digest]:
        return [use.struct() for use in self.uses]

    def anchor(self, as_of_s: int, spent_micro: int | None = None) -> calls.AnchorLog:
        spent = (
            max((use.total_spent_micro for use in self.uses), default=0)
            if spent_micro is None
            else spent_micro
        )
        return calls.AnchorLog(dataset(self.who), log_root(self.leaves), len(self.uses), spent, as_of_s)

    def shown(self, index: int, anchor: int = 0, count: int | None = None) -> Shown:
        return Shown(self.uses[index], anchor, log_proof(self.leaves[:count], index))

    def piece(self, index: int, anchor: int = 0, count: int | None = None) -> Piece:
        return Piece(anchor, self.leaves[index], log_proof(self.leaves[:count], index))


def signed(use: Use, signer: Key) -> bytes:
    return signer.sign(use.signing_digest(NETWORK_DOMAIN))


class VaultPair(Pair):
    """Chains on which ann and bob have listed a dataset each, and anyone may buy."""

    def populate(self) -> None:
        super().populate()
        for who in EVERYONE.values():
            self.expect(calls.Approve(AT.vaults, UINT256_MAX), who)
        for who, name in VAULTS.items():
            self.expect(calls.ListDataset(name_digest(name), terms()), HOTS[who])
        self.advance(1)

    def granted(self, of: Grant, who: str = "ann") -> Grant:
        events = self.expect(calls.GrantAccess(of), HOTS[who])
        assert told(events, AccessGranted).grant == of.struct()
        return of

    def anchored(self, log: Log) -> LogAnchored:
        return told(self.expect(log.anchor(self.now_s), HOTS[log.who]), LogAnchored)

    def stake(self, who: str) -> int:
        return self.twin.registry.participant(OWNERS[who].address).stake

    def balance(self, who: str) -> int:
        return self.twin.token.balance(EVERYONE[who].address)

    def compare_vaults(self) -> None:
        """Every view of Vaults equals the twin's, tokens lie where the twin says, and the contract holds open sales alone."""
        read, twin = self.bytecode.read, self.twin.vaults
        self.bytecode.enter(self.block())
        keys: list[Any] = [key for key, _ in self.twin.state()]
        for _, which in [key for key in keys if key[0] == "dataset"]:
            listing = twin.listing(which)
            expected = (hex0x(listing.owner), listing.frozen, msgspec.structs.astuple(listing.terms))
            assert read("Vaults", "listingOf", which) == expected
            assert read("Vaults", "anchorsOf", which) == twin.anchors(which)
        for _, which, number in [key for key in keys if key[0] == "anchor"]:
            anchor = twin.anchor(which, number)
            assert read("Vaults", "anchorOf", which, number) == msgspec.structs.astuple(anchor)
        for _, which in [key for key in keys if key[0] == "licence"]:
            licence = twin.licence(which)
            assert raw_of(read("Vaults", "licenceOf", which)) == msgspec.structs.astuple(licence)
            for who in KEYS:
                live = twin.is_live(which, who, self.now_s)
                assert read("Vaults", "isLive", which, who) == live
                assert read("Vaults", "balanceOf", who, int.from_bytes(which)) == (licence.holder == who)
        held = 0
        for _, which in [key for key in keys if key[0] == "sale"]:
            sale = twin.sale(which)
            held += sale.price if sale.state in (1, 2) else 0
            assert raw_of(read("Vaults", "saleOf", which)) == msgspec.structs.astuple(sale)
        assert self.twin.token.balance(AT.vaults) == held == read("Token", "balanceOf", AT.vaults)


def hex0x(address: Address) -> str:
    return "0x" + address.hex()


def told(events: tuple[Event, ...], kind: type[Any]) -> Any:
    """The one event of a kind."""
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, f"{kind.__name__}: {found}"
    return found[0]


def raw_of(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """eth_abi gives addresses as hex text."""
    return tuple(bytes.fromhex(one[2:]) if isinstance(one, str) else one for one in values)
