"""Reads what a node earned from its own files, while it runs and while it doesn't; nothing is written.

What another machine earned, its owner reads from the chain: all but what only that machine's books know yet.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core.events import Event
from clusterai.market.core.directory import Directory
from clusterai.node.core.earnings import DAY_S, Books, Earned, Earnings
from clusterai.node.core.leasebook import LeaseBook, Terms
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import recover
from clusterai.protocol.statements import channels_domain, network_domain


class Report(msgspec.Struct, frozen=True):
    """Money in the token's smallest unit; `gas` by day in that of the chain's coin, of what this version sent."""

    earned: list[Earned]
    books: Books
    gas: dict[int, int]


def report(data: Path, owner: Address, network: Network) -> Report:
    """What lies in a node's data folder; a folder where nothing happened yet earned nothing."""
    book = _book(owner, network)
    decoder = msgspec.msgpack.Decoder(LeaseBook.RECORDS)
    book.restore(
        decoder.decode(record)
        for (record,) in _rows(data / "journal.sqlite", "select record from journal order by seq")
    )
    earnings = Earnings(owner, network.rules.epoch_s)
    decode = msgspec.msgpack.Decoder(list[Event]).decode
    for at_s, batch in _rows(data / "chainlog.sqlite", "select at_s, events from batch order by seq"):
        for event in decode(batch):
            book.step(event, at_s)
            earnings.apply(event, at_s)
    books = _books(book)
    spent = _rows(data / "outbox.sqlite", "select day, wei from spent order by day")
    return Report(earnings.earned(books), books, {day: int(wei) for day, wei in spent})


def on_chain(account: Address, network: Network, told: Iterable[Event], now_s: float) -> Report:
    """What an account earned as far as the chain knows: nothing of it is owed or vouched, and gas isn't known.

    Args:
        told: all events from the chain's first block on.
    """
    book = _book(account, network)
    earnings = Earnings(account, network.rules.epoch_s)
    for event in told:
        book.step(event, now_s)
        earnings.apply(event, now_s)
    books = _books(book)
    # Vouchers for what was committed are in that machine's books: without them it would look lost.
    books = msgspec.structs.replace(books, vouched_wei=max(books.claimed_wei, books.committed_wei))
    return Report(earnings.earned(books), books, {})


def _book(owner: Address, network: Network) -> LeaseBook:
    """Who reads admits and meters nothing: no kind of work is asked."""
    return LeaseBook(_terms(owner, network), Directory(), {})


def _books(book: LeaseBook) -> Books:
    claims = book.claims
    made: dict[int, int] = {}
    disputed: dict[int, int] = {}
    for it in book.epochs.made.values():
        epoch = it.receipt.epoch
        if it.disputed:
            disputed[epoch] = disputed.get(epoch, 0) + it.receipt.amount_wei
        elif book.epochs.committed(epoch) is None:
            made[epoch] = made.get(epoch, 0) + it.receipt.amount_wei
    return Books(
        owed_wei=sum(max(0, book.owed_wei(channel)) for channel in claims.configs),
        vouched_wei=sum(claims.vouched_wei(channel) for channel in claims.configs),
        claimed_wei=claims.claimed_wei,
        settled_wei=claims.settled_wei,
        committed_wei=claims.committed_wei,
        made=made,
        disputed=disputed,
        barred=claims.barred,
    )


def _terms(owner: Address, network: Network) -> Terms:
    def never(_: Digest) -> bytes:
        raise AssertionError("who reads signs nothing")

    rules = network.rules
    return Terms(
        me=owner,
        keys=(),
        token=network.contracts.token,
        network=network_domain(network.chain_id, network.contracts.registry),
        channels=channels_domain(network.chain_id, network.contracts.channels),
        epoch_s=rules.epoch_s,
        window_s=rules.window_s,
        sign=never,
        recover=recover,
        confirmations=network.confirmations,
    )


def _rows(path: Path, query: str) -> Iterator[tuple[Any, ...]]:
    """None where the file, or in a file of an older version the table, isn't there."""
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        try:
            rows = db.execute(query)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return
            raise
        yield from rows


def day_of(seconds: float) -> int:
    return int(seconds) // DAY_S
