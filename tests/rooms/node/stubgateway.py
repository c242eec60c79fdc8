"""A gateway of a page: hosts links, gives orders, checks receipts against what was streamed, and pays."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from clusterai.ledger import artifacts
from clusterai.ledger.adapters.follower import Cursor
from clusterai.ledger.adapters.network import Network, save_key, save_network
from clusterai.ledger.core import events
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL
from clusterai.node.adapters.chainlog import ChainLog
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.messages import (
    Announce,
    Answer,
    Cancel,
    Dispute,
    Finished,
    Frame,
    OpenChannel,
    Pay,
    Refused,
    Tokens,
    Work,
)
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import (
    ChannelConfig,
    Order,
    Voucher,
    channels_domain,
    network_domain,
    signing_digest,
)
from clusterai.runtime.adapters.certificate import certificate
from clusterai.runtime.adapters.link import LinkServer
from clusterai.runtime.adapters.wire import Limits
from clusterai.runtime.core.greeting import Identity, Reason
from clusterai.work.inference import KIND, Generation, Sampling
from clusterai.work.inference.core import tiny

NODE_OWNER, GATEWAY_OWNER, DEPLOYER = Key(b"N" * 32), Key(b"G" * 32), Key(b"D" * 32)
NODE, GATEWAY = NODE_OWNER.address, GATEWAY_OWNER.address
NODE_HOT, GATEWAY_HOT = Key(b"n" * 32), Key(b"g" * 32)
CHAIN_ID = 31415
CONTRACTS = local_plan(artifacts.load, DEPLOYER.address).addresses
TOKEN = CONTRACTS.token
NOWHERE, NO_GENESIS = "http://127.0.0.1:9", Digest(b"0" * 32)
NETWORK = network_domain(CHAIN_ID, CONTRACTS.registry)
CHANNELS = channels_domain(CHAIN_ID, CONTRACTS.channels)
CONFIG = ChannelConfig(GATEWAY, GATEWAY_HOT.address, NODE, NODE, TOKEN, 900, b"s" * 32)
CHANNEL = CONFIG.channel_id(CHANNELS)
BALANCE_WEI = 10**12
PATIENCE_S = 120


def prepare(
    folder: Path,
    gateway_url: str,
    now_s: int,
    *,
    rpc_url: str = NOWHERE,
    genesis: Digest = NO_GENESIS,
    told: bool = True,
    settings: Mapping[str, object] | None = None,
    **model: object,
) -> Path:
    """A node's folder: key, manifest and configuration, whose path is returned.

    Args:
        told: the chain's story so far lies there too, as it does after the first hours. Without `rpc_url` the chain
            itself is away, and stays so.
        settings: more of the node's own.
    """
    network = Network(
        chain_id=CHAIN_ID, rpc_urls=(rpc_url,), contracts=CONTRACTS, genesis=genesis, rules=LOCAL
    )
    save_network(folder / "network.json", network)
    save_key(folder / "hot.key", NODE_HOT)
    if told:
        _tell(folder / "data" / "chainlog.sqlite", genesis, now_s)
    config = {
        "data": "data",
        "network": "network.json",
        "key": "hot.key",
        "owner": "0x" + NODE.hex(),
        "gateways": [{"owner": "0x" + GATEWAY.hex(), "url": gateway_url}],
        "models": [{"name": "tiny", "slots": 8, **model}],
        "survives": "process",
        "grace_s": 5,
        **(settings or {}),
    }
    path = folder / "node.json"
    path.write_bytes(msgspec.json.encode(config))
    return path


def _tell(path: Path, genesis: Digest, now_s: int) -> None:
    log = ChainLog(path, genesis)
    log.append(
        [
            events.Registered(NODE, Role.PROVIDER, ZERO_DIGEST),
            events.Delegated(NODE, NODE_HOT.address),
            events.Registered(GATEWAY, Role.GATEWAY, ZERO_DIGEST),
            events.Delegated(GATEWAY, GATEWAY_HOT.address),
            events.Deposited(CHANNEL, GATEWAY, NODE, BALANCE_WEI, BALANCE_WEI),
            events.Block(1, now_s),
        ],
        Cursor(1),
        at_s=now_s,
    )
    log.close()


class Ordered:
    """One order and what came of it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.order = canonical.digest(work.order)
        self.tokens: list[int] = []
        self.finished: Finished | None = None
        self.refused: Refused | None = None
        self.lost = False

    @property
    def over(self) -> bool:
        return self.finished is not None or self.refused is not None or self.lost


class Gateway:
    """Attributes:
    acknowledged: receipts that were checked and paid, by order.
    disputed: receipts of orders that were given up when the link was lost.
    """

    def __init__(self, folder: Path, now: Callable[[], float], port: int = 0) -> None:
        # A loaded machine says nothing for seconds; who is killed here is noticed by the end of its connection.
        limits = Limits(ping_every_s=0.5, dead_after_s=60.0)
        me = Identity(GATEWAY, Role.GATEWAY, NETWORK, GATEWAY_HOT.sign)
        self.server = LinkServer(
            "127.0.0.1",
            port,
            me,
            certificate(folder),
            self._authorize,
            self._up,
            self._down,
            self._frame,
            limits=limits,
        )
        self._now = now
        self._changed = asyncio.Event()
        self._nonce = 0
        self.orders: dict[Digest, Ordered] = {}
        self.offers: Announce | None = None
        self.ups = 0
        self.acknowledged: dict[Digest, Finished] = {}
        self.disputed: dict[Digest, Finished] = {}
        self.vouched_wei = 0

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.server.port}/"

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def serving(self) -> None:
        """Wait until the node announced offers on a link that is up."""
        await self.until(lambda: self.offers is not None and bool(self.offers.offers))

    # --- orders ---

    def order(
        self, prompt: str = "hello", max_tokens: int = 20, seed: int = 0, so_far: tuple[int, ...] = ()
    ) -> Ordered:
        assert self.offers is not None
        offer = self.offers.offers[0]

        generation = Generation(
            tiny.ADDRESS,
            tiny.encode(prompt),
            Sampling(seed=seed),
            max_tokens=max_tokens,
            so_far=so_far,
        )
        request = generation.canonical()
        self._nonce += 1
        order = Order(
            GATEWAY,
            NODE,
            tiny.ADDRESS,
            canonical.content_digest(request),
            CHANNEL,
            offer.input_price_wei,
            offer.output_price_wei,
            KIND.cap_wei(generation, offer.input_price_wei, offer.output_price_wei),
            int(self._now()) + 600,
            self._nonce.to_bytes(32),
        )
        ordered = Ordered(Work(order, GATEWAY_HOT.sign(signing_digest(order, NETWORK)), KIND.name, request))
        self.orders[ordered.order] = ordered
        assert self.server.send(NODE, ordered.work)
        return ordered

    def cancel(self, ordered: Ordered) -> None:
        self.server.send(NODE, Cancel(ordered.order))

    # --- link ---

    def _authorize(self, hot: Address, role: Role) -> Address | Reason:
        return NODE if hot == NODE_HOT.address and role is Role.PROVIDER else Reason.UNREGISTERED

    def _up(self, peer: Address, role: Role) -> None:
        self.ups += 1
        self.server.send(peer, OpenChannel(CONFIG))
        self._changed.set()

    def _down(self, peer: Address, reason: str) -> None:
        self.offers = None
        for ordered in self.orders.values():
            ordered.lost = ordered.lost or not ordered.over
        self._changed.set()

    def _frame(self, peer: Address, frame: Frame) -> None:
        match frame:
            case Announce():
                self.offers = frame
            case Tokens(order, start, tokens):
                ordered = self.orders[Digest(order)]
                assert start == len(ordered.tokens), "a gap, or tokens twice"
                ordered.tokens.extend(tokens)
            case Finished():
                self._finished(frame)
            case Refused(order):
                self.orders[Digest(order)].refused = frame
            case _:
                pass
        self._changed.set()

    def _finished(self, frame: Finished) -> None:
        receipt = frame.receipt
        order = Digest(receipt.order)
        ordered = self.orders[order]
        assert (
            recover(typed_digest(NETWORK.separator(), receipt.struct()), frame.signature) == NODE_HOT.address
        )
        assert abs(receipt.epoch - int(self._now()) // LOCAL.epoch_s) <= 1, "a stale epoch"
        earlier = self.acknowledged.get(order) or self.disputed.get(order)
        assert earlier is None or earlier.receipt == receipt, "two receipts of one order"
        if order not in self.acknowledged:
            if ordered.lost:
                self.disputed[order] = frame
                self.server.send(NODE, Dispute(receipt.order, "superseded", ""))
                return
            assert receipt.answer == Answer(tuple(ordered.tokens), frame.reason).digest(), "another answer"
            self.vouched_wei += receipt.amount_wei
            self.acknowledged[order] = frame
            ordered.finished = frame
        voucher = Voucher(CHANNEL, self.vouched_wei)
        signature = GATEWAY_HOT.sign(signing_digest(voucher, CHANNELS))
        self.server.send(NODE, Pay(receipt.order, voucher, signature))
