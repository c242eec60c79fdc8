"""Asking for credit back: who signs, what is signed, and waiting until the chain has paid."""

import os
import secrets
import time
from pathlib import Path

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import DataFolder
from clusterai.ledger.adapters.network import BadKeyFile, load_key
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, BadId, address, digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.withdrawal import Withdrawal
from clusterai.sdk import ApiError, Client
from clusterai.sdk import shapes as told

HOLDS_S = 600
"""How long a signature holds."""
PAID_S = 60.0
POLL_S = 0.1
MOST_WEI = 2**63 - 1


class NotPaid(Exception):
    """The gateway owes withdrawal {name}, and the chain didn't pay it in time: {why}."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why


def payer(file: Path | None, folder: DataFolder) -> Key:
    """The key of the address that paid in; without a file, the faucet's of a local network.

    Raises:
        Failure: there is no such key.
    """
    path = file or folder.keys / "treasury.key"
    try:
        return load_key(path, os.environ.get("CLUSTERAI_KEY_PASSWORD"))
    except BadKeyFile as error:
        raise Failure(
            "there is no key to sign with", str(error), "clusterai account withdraw --key FILE", Exit.USAGE
        ) from None


def signed(
    client: Client, key: Key, most_wei: int | None, to: str | None, *, own: bool
) -> tuple[Withdrawal, bytes]:
    """A withdrawal from the API key's account, or with `own` from the signer's own, and its signature."""
    status = client.status()
    home = key.address if to is None else _address(to)
    account = bytes(12) + key.address if own else digest(client.account().account)
    wish = Withdrawal(
        address(status.gateway),
        account,
        home,
        MOST_WEI if most_wei is None else most_wei,
        int(max(time.time(), status.chain_time_s)) + HOLDS_S,
        secrets.token_bytes(32),
    )
    network: Domain = network_domain(status.chain_id, address(status.registry))
    return wish, key.sign(wish.name(network))


def until_paid(client: Client, made: told.Withdrawal) -> told.Withdrawal:
    """
    Raises:
        NotPaid: it takes longer than a minute.
    """
    ends_s = time.monotonic() + PAID_S
    while made.state != "paid":
        if time.monotonic() > ends_s:
            raise NotPaid(made.id, made.reason or "the chain is slow, or away")
        time.sleep(POLL_S)
        made = _again(client, made)
    return made


def _again(client: Client, made: told.Withdrawal) -> told.Withdrawal:
    try:
        return client.withdrawal(made.id)
    except ApiError as error:
        raise NotPaid(made.id, error.detail) from None


def _address(text: str) -> Address:
    try:
        return address(text)
    except BadId as error:
        raise Failure(f"{text!r} is no address", str(error), code=Exit.USAGE) from None
