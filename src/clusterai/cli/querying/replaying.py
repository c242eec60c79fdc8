"""An answer once more, from the vault's rows and its noise key: what was answered then must come out to the byte.

    chain   digest of the noise key, fixed when the data set was listed  ──>  is this folder's key that one?
    file    order, and the use and tally that the vault signed           ──>  is the result that one, and what went into a sum?
    log     the vault's own uses                                         ──>  does it say the same?

It shows that noise wasn't chosen and numbers weren't made up, to who holds the data. That the data is true it doesn't show. A round of training isn't done again: what an
app answers on a block needn't come out the same, and the commitment to its vector has a salt that nothing tells.
"""

import asyncio
import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.adapters.standing import standings
from clusterai.ledger.core.standing import Standing
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, hex0x
from clusterai.protocol.signing import BadSignature, recover, signed_by
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Operation, SignedUse, dataset_id
from clusterai.sandbox import CannotSandbox
from clusterai.vault.adapters.bookkeeping import read_book
from clusterai.vault.adapters.folder import BadVault, VaultFolder
from clusterai.vault.adapters.piecestore import StoreFault
from clusterai.vault.adapters.storage import Damaged, NoData, Storage, WrongKey
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.noisekey import noise_commit, noise_key, noise_seed
from clusterai.vault.core.pieces import joined
from clusterai.work.joint.adapters import noise
from clusterai.work.joint.core.chain import Tally, tallied
from clusterai.work.joint.spec import Pledge, ShareOrder, decode_order
from clusterai.work.joint.spec import decode_said as decode_pledge
from clusterai.work.query.adapters.blocks import Programs, averaged
from clusterai.work.query.adapters.computing import needed, replayed, result_of
from clusterai.work.query.core.plan import RefusedQuery
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.spec import SPARE_S, Answer, QuerySpec, Result, decode_query, decode_said

MOST_FILE = 64 << 20


class Asked(msgspec.Struct, frozen=True):
    """What one vault was asked, and what its requester holds of its answer: the signed use, and of a sum under a key the signed tally."""

    order: QuerySpec | ShareOrder
    use: SignedUse | None = None
    tally: Tally | None = None


class Replayed(msgspec.Struct, frozen=True):
    """What came of one query.

    Attributes:
        kind: "query", "program", or "joint" for a share of a statistic over several vaults.
        logged: the result in the vault's log of uses; None where the log has no use of this query.
        signed: the result in the use that the requester holds; None where the file has none.
        tally: whether the number that the vault signed of its share is true; None where it signed none.
    """

    query: str
    kind: str
    result: str
    logged: str | None
    signed: str | None
    tally: bool | None

    @property
    def answered(self) -> bool:
        """Else nobody says that the vault did: anyone can write a query into a file."""
        return self.logged is not None or self.signed is not None

    @property
    def wrong(self) -> str:
        """Empty where all is as it must be."""
        if self.logged is None:
            return "" if self.signed is None else "signed for, and not in the log"
        if self.signed not in (None, self.logged):
            return "signed otherwise than it is logged"
        if self.result != self.logged:
            return "not what was answered"
        return "" if self.tally is not False else "pledged so, and not tallied so in the sum"

    def complaint(self, vault: str) -> str:
        """What to tell where something is wrong. A program's other numbers alone accuse nobody."""
        if self.kind == "program" and self.signed in (None, self.logged) and self.logged is not None:
            return (
                f"the program gave other numbers than {vault} answered to {self.query[:18]}: the answer is false, "
                "or the program uses time or chance, or a block of it ran out of its time, then or now"
            )
        return f"{vault} gave a false answer to {self.query[:18]}: {self.wrong}"


def asked_in(file: Path) -> list[Asked]:
    """What `clusterai query --json` wrote down.

    Raises:
        Failure.
    """
    try:
        if file.stat().st_size > MOST_FILE:
            raise ValueError(f"it has more than {MOST_FILE} bytes")
        raw = file.read_bytes()
        if msgspec.json.decode(raw, type=_Training).is_one:
            raise Failure(
                "a training isn't done again",
                "what an app answers needn't come out the same; its noise is drawn from the committed key, and nothing shows that it was",
                "clusterai train check RUN looks at the sums",
                Exit.USAGE,
            )
        told = msgspec.json.decode(raw, type=_File)
        return [_asked(it, told.joint) for it in told.vaults]
    except (OSError, ValueError, Malformed, msgspec.MsgspecError) as error:
        raise Failure(
            f"{file} isn't what clusterai query --json writes", str(error), code=Exit.USAGE
        ) from None


class _Training(msgspec.Struct):
    """A run's lineage.json, or what the command answers."""

    format: str = ""
    lineage: str = ""

    @property
    def is_one(self) -> bool:
        return self.format.startswith("clusterai-lineage") or bool(self.lineage)


class _Vault(msgspec.Struct):
    request: str
    answer: str = ""
    tally: str | None = None


class _File(msgspec.Struct):
    vaults: list[_Vault]
    joint: bool = False


def _asked(told: _Vault, is_joint: bool) -> Asked:
    def plain(text: str) -> bytes:
        return base64.b64decode(text, validate=True)

    raw = plain(told.request)
    order = decode_order(raw) if is_joint else decode_query(raw)
    if not told.answer:
        return Asked(order)
    said = decode_pledge(plain(told.answer)) if is_joint else decode_said(plain(told.answer))
    if not isinstance(said, Pledge | Answer) or said.use.use.order != order.digest():
        raise ValueError("an answer in it is of another order")
    return Asked(order, said.use, canonical.decode(plain(told.tally), Tally) if told.tally else None)


class Known(msgspec.Struct, frozen=True):
    """What the chain says of the orders' data sets, and of who signed their uses, in the orders' order."""

    network: Domain
    standings: tuple[Standing, ...]


def known_of(network: Network, asked: Sequence[Asked]) -> Known:
    """
    Raises:
        Failure: the chain can't be asked.
    """
    domain = network_domain(network.chain_id, network.contracts.registry)

    async def ask() -> list[Standing]:
        async with ChainClient(network) as chain:
            await chain.check()
            return await standings(chain, [(signer(it, domain), Digest(it.order.dataset)) for it in asked])

    try:
        return Known(domain, tuple(asyncio.run(ask())))
    except (ChainDown, RpcRefused, OtherChain) as error:
        raise Failure(
            "the chain can't be asked which noise key was committed to",
            str(error),
            "clusterai status",
            Exit.NOT_RUNNING,
        ) from None


def signer(asked: Asked, network: Domain) -> Address:
    """Zeros where nobody did."""
    if asked.use is None:
        return ZERO_ADDRESS
    try:
        return recover(asked.use.use.signing_digest(network), asked.use.signature)
    except BadSignature:
        return ZERO_ADDRESS


def replay(folder: VaultFolder, asked: Sequence[Asked], known: Known) -> list[Replayed]:
    """Those of the queries that this vault's data answers.

    Raises:
        Failure: it answers none of them, can't be read, or draws noise from another key than it committed to.
    """
    name = folder.named.name
    try:
        master = folder.master()
        book = read_book(folder)
        storage = Storage(folder.store, master, folder.named.store)
    except (BadVault, WrongKey) as error:
        raise Failure("the vault can't be read", str(error)) from None
    try:
        if storage.manifest is None:
            raise Failure("there is no data in this vault")
        mine = [
            (it, on_chain)
            for it, on_chain in zip(asked, known.standings, strict=True)
            if it.order.snapshot == storage.manifest.snapshot
            and (on_chain.said is None or dataset_id(on_chain.lister, name) == it.order.dataset)
        ]
        if not mine:
            raise Failure(
                f"none of these queries is of {name} as it is now",
                f"its snapshot is {hex0x(storage.manifest.snapshot)}",
                code=Exit.NOT_FOUND,
            )
        for it, on_chain in mine:
            _same_key(name, it, on_chain, noise_commit(noise_key(master)))
            _own_word(name, it, on_chain, known.network)
        return [_replayed(it, storage, book, master) for it, _ in mine]
    except (NoData, Damaged, StoreFault) as error:
        raise Failure("the vault's data can't be read", str(error)) from None
    finally:
        storage.close()


def _same_key(name: str, asked: Asked, on_chain: Standing, here: Digest) -> None:
    """
    Raises:
        Failure: this folder's noise key isn't the one that the chain has for the data set.
    """
    if on_chain.said is None:
        raise Failure(
            f"{name} isn't listed on chain",
            "what its noise key must be stands there",
            "name the network where it was asked by --network FILE",
            Exit.NOT_FOUND,
        )
    committed = Digest(on_chain.said[3])
    if committed != here:
        raise Failure(
            f"{name} draws noise from another key than it committed to",
            f"the chain has {hex0x(committed)}, this folder's key makes {hex0x(here)}",
            "its answers' noise may have been chosen: believe none of them",
            Exit.UNTRUE,
        )


def _own_word(name: str, asked: Asked, on_chain: Standing, network: Domain) -> None:
    """
    Raises:
        Failure: what the file says that the vault signed, nobody signed who speaks for it: somebody may want it to look false.
    """
    if asked.use is not None and (
        on_chain.owner != on_chain.lister or signer(asked, network) == ZERO_ADDRESS
    ):
        raise Failure(
            f"the use in the file isn't signed for {name}",
            "no key signed it that acts for the vault's owner now",
            "take its answer and tally out of the file to compare with the log alone",
            Exit.USAGE,
        )
    if asked.tally is None:
        return
    assert isinstance(asked.order, ShareOrder), "only these files have tallies"
    study = asked.order.study
    members = dict(zip(study.subjects, study.members, strict=True))
    member = Address(members.get(asked.order.model, ZERO_ADDRESS))
    if asked.tally.order != asked.order.digest() or not signed_by(
        member, asked.tally.unsigned(), asked.tally.signature
    ):
        raise Failure(
            f"the tally in the file isn't signed for {name}",
            "it is of another order, or no key signed it with which this vault signs in that study",
            code=Exit.USAGE,
        )


def _replayed(asked: Asked, storage: Storage, book: VaultBook, master: bytes) -> Replayed:
    order, key, query = asked.order, noise_key(master), asked.order.digest()
    tally = None
    if isinstance(order, ShareOrder):
        share = _share(order, storage, noise_seed(key, query, order.study.nonce))
        result = noise.pledged(share, noise_seed(key, query, noise.SALT))
        if asked.tally is not None:
            mask = noise.mask(noise_seed(key, query, asked.tally.made))
            tally = tallied([*share.tolist(), *mask.tolist()], asked.tally.seed) == asked.tally.value
    else:
        result = _result(order, storage, book, noise_seed(key, query, order.nonce)).digest()
    logged = next((it.result for it in book.uses() if it.order == query), None)
    return Replayed(
        hex0x(query),
        _kind(order),
        hex0x(result),
        None if logged is None else hex0x(Digest(logged)),
        None if asked.use is None else hex0x(Digest(asked.use.use.result)),
        tally,
    )


def _kind(order: QuerySpec | ShareOrder) -> str:
    if isinstance(order, ShareOrder):
        return "joint"
    return "program" if order.operation == Operation.CODE else "query"


def _columns(storage: Storage, names: tuple[str, ...]) -> Mapping[str, Any]:
    assert storage.manifest is not None
    return joined(storage.manifest.schema, storage.pieces(names), names)


def _share(order: ShareOrder, storage: Storage, seed: bytes) -> noise.joint.Integers:
    assert storage.manifest is not None
    schema, study = storage.manifest.schema, order.study
    try:
        columns = _columns(storage, noise.needed(study.question, schema))
        return noise.share_of(study.question, study.epsilon_micro, study.delta_pico, schema, columns, seed)
    except (KeyError, ValueError) as error:
        raise Failure("this was never answered", str(error), code=Exit.UNTRUE) from None


def _result(spec: QuerySpec, storage: Storage, book: VaultBook, seed: bytes) -> Result:
    assert storage.manifest is not None
    schema = storage.manifest.schema
    if spec.operation == Operation.QUERY:
        try:
            return replayed(spec, schema, _columns(storage, needed(plan_of(spec.sql, schema), schema)), seed)
        except RefusedQuery as error:
            raise Failure("this was never answered", str(error), code=Exit.UNTRUE) from None
    if spec.operation != Operation.CODE:
        raise Failure("what a program made for review isn't done again")
    entry = book.entry_of(Digest(spec.grant))
    if entry is None or not entry.code:
        raise Failure("the program isn't kept any more", "its grant ended")
    with tempfile.TemporaryDirectory(prefix="clusterai-replay-") as place:
        try:
            programs = Programs(Path(place))
        except CannotSandbox as error:
            raise Failure("programs can't be run here", str(error)) from None
        say.say(
            f"running the program over {spec.blocks} blocks again: {spec.blocks * (spec.block_s + SPARE_S)} s"
        )
        told = asyncio.run(
            averaged(programs, spec, schema, _columns(storage, schema.names), seed, entry.code)
        )
    return result_of(spec, schema, seed, told)
