"""Whether a listing is its owner's word: what the chain knows of the key that signed it and of the data set decides."""

import asyncio
import base64
from typing import Any

import msgspec
import pytest

from clusterai.cli.failure import Exit
from clusterai.cli.vouching import Voucher, judged
from clusterai.ledger.core.standing import Standing
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Role, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Listing
from clusterai.sdk.vaults import Listed, read
from clusterai.sdk.vaultshapes import Dataset
from tests.rooms.vaults.listings import listed as written

NETWORK = network_domain(31415, Address(bytes(range(20))))
OWNER, HOT, STRANGER = (Key(bytes([at]) * 32) for at in (1, 2, 3))
SEALED: dict[str, object] = {"seal_to": "0x" + "07" * 32}


def listing(key: Key, owner: Key, serial: int = 5, **card: Any) -> Listed:
    said = written(key, NETWORK, "hearts", owner.address, serial, **card)
    signed = canonical.decode(said.listing, Listing)
    told = {
        "dataset": hex0x(signed.dataset),
        "owner": hex0x(signed.owner),
        "serial": serial,
        "snapshot": hex0x(signed.snapshot),
        "policy": hex0x(signed.policy),
        "card": msgspec.Raw(said.card),
        "listing": base64.b64encode(said.listing).decode(),
        "signature": hex0x(said.signature),
        "holders": (),
    }
    return read(msgspec.json.decode(msgspec.json.encode(told), type=Dataset), NETWORK)


def known(of: Listed, **changes: Any) -> Standing:
    """What the chain knows where all is well."""
    it = of.listing
    told: dict[str, Any] = {
        "owner": OWNER.address,
        "roles": int(Role.PROVIDER),
        "serial": it.serial,
        "said": (it.card, it.snapshot, it.policy, it.noise_commit),
    }
    return Standing(**{**told, **changes})


VAULT = listing(HOT, OWNER, clusterai=SEALED)


@pytest.mark.parametrize(
    "here",
    [
        known(VAULT),
        known(VAULT, serial=4, said=(b"",) * 4),
        known(VAULT, serial=None, said=None),
        known(VAULT, roles=int(Role.PROVIDER | Role.GATEWAY)),
    ],
    ids=["as on chain", "newer than the chain's", "not on chain yet", "with other roles"],
)
def test_an_owners_word_is_believed(here: Standing) -> None:
    """Signed by a hot key that the chain knows for the owner's, and no older than what stands there."""
    assert judged(VAULT, here) is None


@pytest.mark.parametrize(
    ("of", "here", "why"),
    [
        (listing(STRANGER, OWNER, clusterai=SEALED), Standing(ZERO_ADDRESS), "acts for nobody"),
        (listing(STRANGER, OWNER, clusterai=SEALED), Standing(STRANGER.address, 1), "acts for 0x"),
        (listing(STRANGER, STRANGER, clusterai=SEALED), Standing(ZERO_ADDRESS), "acts for nobody"),
        (listing(STRANGER, STRANGER, clusterai=SEALED), Standing(STRANGER.address, int(Role.GATEWAY)), "registered for other"),
        (listing(STRANGER, OWNER), Standing(ZERO_ADDRESS), "acts for nobody"),
        (VAULT, known(VAULT, barred=True), "slashed"),
        (VAULT, known(VAULT, frozen=True), "broke"),
        (VAULT, known(VAULT, serial=6), "its listing 6"),
        (VAULT, known(VAULT, said=(b"other", b"", b"", b"")), "its listing 5"),
    ],
    ids=[
        "a key of nobody",
        "another participant's key",
        "a stranger's vault of the same name",
        "a gateway's own vault that stakes nothing",
        "files in another's name",
        "of who was slashed",
        "of who was convicted of its log",
        "an old one",
        "one of two with one serial",
    ],
)  # fmt: skip
def test_a_lie_is_named(of: Listed, here: Standing, why: str) -> None:
    """Whatever else a gateway makes up, the chain contradicts it, and the failure says with what."""
    failure = judged(of, here)
    assert failure is not None
    assert failure.code == Exit.UNTRUE
    assert why in failure.why


def test_files_that_name_their_own_signer_need_no_chain() -> None:
    """A published folder's identity isn't registered anywhere; its hashes prove it, and its id holds its key."""
    files = listing(STRANGER, STRANGER)
    assert judged(files, Standing(ZERO_ADDRESS)) is None


def test_without_a_manifest_it_is_said_once_that_the_gateway_alone_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who has no manifest is told so, once in a command, and files that need nobody else's word don't bring it up."""

    async def main() -> None:
        async with Voucher(None) as vouch:
            await vouch(listing(STRANGER, STRANGER))
            assert capsys.readouterr().err == ""
            await vouch(VAULT)
            await vouch(VAULT)

    asyncio.run(main())
    assert capsys.readouterr().err.count("--network") == 1
