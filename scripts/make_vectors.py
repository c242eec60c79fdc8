"""Writes tests/vectors/*.json: fixed values with the bytes and digests that every implementation must arrive at.

    python scripts/make_vectors.py            rewrite the files
    python scripts/make_vectors.py --check    say whether they are up to date

Solidity tests, other languages and docs/spec read the files. A change in them is a change of the protocol.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from clusterai.audit.core.draw import drawn, lot
from clusterai.audit.core.evidence import ClearedCase, ListCase, case_of
from clusterai.audit.core.opening import open_receipt
from clusterai.audit.core.segments import (
    Commitment,
    RateRules,
    Seat,
    auditor_lot,
    draw,
    drawn_unit,
    pick,
    rate_ppm,
)
from clusterai.ledger.core import calls
from clusterai.ledger.core.abi import Codec
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import LOCAL
from clusterai.ledger.core.twin import BlockContext, TwinChain
from clusterai.protocol import calls as call_protocol
from clusterai.protocol import canonical, jobs, measuring, merkle, pots, rentals, vaults
from clusterai.protocol import offers as offer_protocol
from clusterai.protocol.access import AskStanding
from clusterai.protocol.belonging import belong
from clusterai.protocol.cards import Card
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role, address, hex0x
from clusterai.protocol.leases import (
    Terms,
    is_bait,
    leases_domain,
    sealed_result,
    trap_digest,
    trap_nonce,
)
from clusterai.protocol.messages import (
    Announce,
    Answer,
    AskEpoch,
    Cancel,
    Dispute,
    EpochOpened,
    Finished,
    ModelOffer,
    OpenChannel,
    Pay,
    Ping,
    Pong,
    Refused,
    Relay,
    Tokens,
    Transcript,
    Unreachable,
    Work,
)
from clusterai.protocol.offering import Carded, Offered, OfferTurned
from clusterai.protocol.offers import MachineMeasurement, MachineOffer
from clusterai.protocol.sealing import SealedCall
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import (
    EPOCH_LIST,
    ChannelConfig,
    Clearance,
    Delegation,
    Greeting,
    Order,
    Outcome,
    Receipt,
    Statement,
    Verdict,
    Voucher,
    channels_domain,
    court_domain,
    network_domain,
    signing_digest,
)
from clusterai.work.cluster.spec import ClusterSpec
from clusterai.work.inference import Generation, Sampling

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "vectors"
CHAIN_ID = 31415
CHANNELS = address("0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003")
COURT, REGISTRY, TOKEN = (Address(bytes([n]) * 20) for n in (0xC0, 0xE6, 0x70))
DOMAINS = {
    "channels": channels_domain(CHAIN_ID, CHANNELS),
    "court": court_domain(CHAIN_ID, COURT),
    "network": network_domain(CHAIN_ID, REGISTRY),
}
GATEWAY, PROVIDER, VALIDATOR = (Key(bytes(31) + bytes([n])) for n in (1, 2, 3))

CHANNEL = ChannelConfig(
    payer=GATEWAY.address,
    payer_authorizer=GATEWAY.address,
    receiver=PROVIDER.address,
    receiver_authorizer=PROVIDER.address,
    token=TOKEN,
    withdraw_delay_s=900,
    salt=bytes(range(32)),
)
MODEL = canonical.content_digest(b"a model")
GENERATION = Generation(MODEL, (1, 200, 40_000), Sampling(seed=7, temperature_ppm=700_000), max_tokens=4)
REQUEST = GENERATION.canonical()
ANSWER = Answer((17, 0, 49_151), "stop")
ORDER = Order(
    gateway=GATEWAY.address,
    provider=PROVIDER.address,
    model=MODEL,
    request=canonical.content_digest(REQUEST),
    channel_id=CHANNEL.channel_id(DOMAINS["channels"]),
    input_price_wei=1,
    output_price_wei=2,
    cap_wei=1_000,
    expires_s=1_700_000_060,
    nonce=bytes(31) + b"\x09",
)
RECEIPT = Receipt(
    order=canonical.digest(ORDER),
    provider=PROVIDER.address,
    gateway=GATEWAY.address,
    model=MODEL,
    answer=ANSWER.digest(),
    input_units=3,
    output_units=3,
    amount_wei=9,
    epoch=113_333_333,
)
VOUCHER = Voucher(ORDER.channel_id, 2**63 - 1)
VERDICT = Verdict(PROVIDER.address, RECEIPT.epoch, 2, RECEIPT.struct(), int(Outcome.FRAUD), bytes([5]) * 32)
CLEARANCE = Clearance(PROVIDER.address, RECEIPT.epoch, bytes([6]) * 32, 3, bytes([7]) * 32)
DELEGATION = Delegation(VALIDATOR.address, PROVIDER.address)
GREETING = Greeting(PROVIDER.address, 1, bytes([8]) * 32)
SIGNATURE = PROVIDER.sign(signing_digest(RECEIPT, DOMAINS["network"]))
TRANSCRIPT = Transcript(
    ORDER, GATEWAY.sign(signing_digest(ORDER, DOMAINS["network"])), "inference", REQUEST, ANSWER
)


def jsonable(value: Any) -> Any:
    """Bytes as 0x hex, structs as objects with the fields' names."""
    if isinstance(value, bytes):
        return hex0x(value)
    if isinstance(value, msgspec.Struct):
        return {name: jsonable(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def statements() -> dict[str, Any]:
    signed: list[tuple[Statement, str, Key]] = [
        (VOUCHER, "channels", GATEWAY),
        (ORDER, "network", GATEWAY),
        (RECEIPT, "network", PROVIDER),
        (VERDICT, "court", VALIDATOR),
        (CLEARANCE, "court", VALIDATOR),
        (GREETING, "network", PROVIDER),
        (DELEGATION, "network", PROVIDER),
    ]
    return {
        "domains": {name: _domain(domain) for name, domain in DOMAINS.items()},
        "channel": {
            "config": jsonable(CHANNEL),
            "bytes": hex0x(canonical.encode(CHANNEL)),
            "id": hex0x(CHANNEL.channel_id(DOMAINS["channels"])),
        },
        "statements": [
            {
                "type": type(statement).__name__,
                "domain": domain,
                "value": jsonable(statement),
                "bytes": hex0x(canonical.encode(statement)),
                "digest": hex0x(canonical.digest(statement)),
                "struct_hash": hex0x(statement.struct()),
                "signing_digest": hex0x(signing_digest(statement, DOMAINS[domain])),
                "secret": hex0x(key.secret()),
                "signer": hex0x(key.address),
                "signature": hex0x(key.sign(signing_digest(statement, DOMAINS[domain]))),
            }
            for statement, domain, key in signed
        ],
    }


def _domain(domain: Domain) -> dict[str, Any]:
    return jsonable(domain) | {"separator": hex0x(domain.separator())}


def frames() -> dict[str, Any]:
    ask = AskEpoch(VALIDATOR.address, PROVIDER.address, RECEIPT.epoch, (0, 2), bytes([9]) * 32, bytes(65))
    digest = ask.signing_digest(DOMAINS["network"])
    ask = msgspec.structs.replace(ask, signature=VALIDATOR.sign(digest))
    opened = EpochOpened(PROVIDER.address, RECEIPT.epoch, (RECEIPT,), (SIGNATURE,), ((0, b"sealed"),))
    order = RECEIPT.order
    examples: list[msgspec.Struct] = [
        Announce((ModelOffer(MODEL, "smollm2-135m", 1, 2, 32),), 1, 0, paused=False),
        OpenChannel(CHANNEL),
        Work(ORDER, TRANSCRIPT.order_signature, "inference", REQUEST),
        Tokens(order, 0, (17, 0), (-1_200, -3), (((17, -1_200), (5, -1_500)), ((0, -3),))),
        Finished(RECEIPT, SIGNATURE, "stop", 0),
        Refused(order, "busy", "the queue is full", 750),
        Cancel(order),
        Pay(order, VOUCHER, GATEWAY.sign(signing_digest(VOUCHER, DOMAINS["channels"]))),
        Dispute(order, "usage_mismatch", "4 tokens, not 3"),
        Ping(1_700_000_000_000, 1, 2),
        Pong(1_700_000_000_000),
        Relay(VALIDATOR.address, PROVIDER.address, canonical.encode(ask)),
        Unreachable(PROVIDER.address),
        *job_frames(),
        *rent_frames(),
        measured(),
        *offering_frames(),
        *call_frames(),
    ]
    inner: list[msgspec.Struct] = [ask, opened, *job_relayed(), *measuring_relayed()]
    values: list[msgspec.Struct] = [GENERATION, ANSWER, TRANSCRIPT, open_receipt([RECEIPT], 0, TRANSCRIPT)]
    return {
        "frames": [_bytes_of(frame) for frame in examples],
        "relayed": [_bytes_of(frame) for frame in inner],
        "values": [_bytes_of(value) for value in values],
        "ask_epoch_signing_digest": hex0x(digest),
    }


LEASE = canonical.content_digest(b"lease")
TERMS = Terms(
    requester=GATEWAY.address,
    provider=PROVIDER.address,
    spec=canonical.content_digest(b"spec"),
    resources=canonical.content_digest(b"resources"),
    input=canonical.content_digest(b"input"),
    expected=bytes(32),
    determinism=1,
    segments=4,
    units=4_000_000,
    compensation_wei=2_800,
    audit_fee_wei=100,
    start_by_s=1_700_000_060,
    deadline_s=1_700_003_660,
    nonce=bytes(31) + b"\x0a",
)
CONTENT = canonical.content_digest(b"content")
CLAIMS = measuring.Claims(7, "x86-64-v3", "a processor", 2, 2_000, 2**31, 2**33, (), "eu", 100_000)
MACHINE_OFFER = MachineOffer(
    PROVIDER.address,
    PROVIDER.address,
    serial=7,
    hardware="x86-64-v4",
    cpu_milli=64_000,
    memory_bytes=2**38,
    gpu="h100",
    gpus=8,
    region="eu-de",
    bandwidth_kbps=10_000_000,
    price_wei=2_500_000_000,
    issued_s=1_790_000_000,
    expires_s=1_790_000_600,
    disk_bytes=2**40,
    longest_s=86_400,
)


BELONGING = belong(GATEWAY, PROVIDER, DOMAINS["network"], 1_790_000_000, 1_821_536_000)


def job_frames() -> list[msgspec.Struct]:
    return [
        jobs.Lends("batch", b"offer", 1, 0),
        jobs.StartLease("batch", TERMS, b"spec", jobs.Bait(bytes(31) + b"\x0b", 4, 60)),
        jobs.LeaseRefused(LEASE, "full", "two jobs run here already"),
        jobs.Progress(LEASE, 2, 4, 14),
        jobs.Logged(LEASE, 0, is_error=False, total=8, data=b"epoch 1\n"),
        jobs.AskLog(LEASE, is_error=True, start=8),
        jobs.Done(LEASE, CONTENT, 28, 2_800, 0, ""),
        jobs.Broken(LEASE, "out_of_memory", "it asked for more than 1 GiB"),
        jobs.AskContent(LEASE, CONTENT, 0),
        jobs.ContentPart(LEASE, CONTENT, 0, 7, b"content"),
        jobs.ContentMissing(LEASE, CONTENT),
    ]


def measured() -> measuring.Measured:
    """What stands in the measurement is another chapter's: here the shape counts."""
    claims = CLAIMS
    found = (measuring.Finding("memory_bytes", 2**31, 2**29, "as much as was asked to be filled"),)
    findings = measuring.Findings(
        PROVIDER.address, VALIDATOR.address, 9, 1_700_000_000, 21_400, claims, found
    )
    return measuring.Measured(b"measurement", SIGNATURE, canonical.encode(findings))


def measuring_relayed() -> list[msgspec.Struct]:
    def signed(frame: measuring.Examine | measuring.Shown | measuring.Trip, key: Key) -> msgspec.Struct:
        return msgspec.structs.replace(frame, signature=key.sign(frame.signing_digest(DOMAINS["network"])))

    node, validator, seed = PROVIDER.address, VALIDATOR.address, bytes([8]) * 32
    run = measuring.Run((0, 1), 2_000)
    examine = measuring.Examine(validator, node, seed, 1_700_000_000, run, bytes(65))
    ran = measuring.Ran(((bytes([4]) * 32,), (bytes([5]) * 32,)))
    trip = measuring.Trip(validator, node, 12_300, 1_700_000_000, "eu", 10, -20, 30, 400, 250_000, bytes(65))
    return [
        signed(examine, VALIDATOR),
        signed(measuring.Shown(node, node, seed, ran, bytes(65)), PROVIDER),
        signed(trip, VALIDATOR),
        measured(),
    ]


def rent_frames() -> list[msgspec.Struct]:
    key = bytes([7]) * 32
    mine = rentals.MeshKey(LEASE, 1, 2, PROVIDER.address, key)
    counted = rentals.Heartbeats(rentals.stay_model(LEASE, 1, 2), 600, rentals.head_of(key, LEASE))
    members = (
        rentals.MeshMember(0, bytes([6]) * 32, ("198.51.100.7", 40_001)),
        rentals.MeshMember(1, key, None),
    )
    return [
        rentals.OpenStay(LEASE, 1, 2, ClusterSpec().canonical(), 10**8, 1_700_003_600),
        rentals.StayOpened(LEASE, 1, 2, key, PROVIDER.sign(mine.signing_digest(DOMAINS["network"]))),
        rentals.JoinStay(LEASE, 2, 0, b"token", members),
        rentals.StayReady(LEASE, 2, (("mesh", 210), ("ray", 4_100))),
        rentals.StayBroke(LEASE, 2, "died", "Ray's own process ended"),
        rentals.StayTold(LEASE, 2, "memory", "the kernel killed 1 process"),
        rentals.StayHears(LEASE, 2, ((0, 1_200), (3, 40_000))),
        rentals.TellPath(LEASE, 0, "203.0.113.9", 51_820),
        rentals.PauseStay(LEASE, 2, paused=True),
        rentals.Countersign(counted, GATEWAY.sign(counted.signing_digest(DOMAINS["network"]))),
        rentals.AskStayLog(LEASE, 2, 40),
        rentals.StayLogged(LEASE, 2, 40, 48, b"started\n"),
        rentals.EndStay(LEASE, 2),
    ]


def offering_frames() -> list[msgspec.Struct]:
    signature = PROVIDER.sign(offer_protocol.signed_digest(MACHINE_OFFER, DOMAINS["network"]))
    return [
        Offered(canonical.encode(MACHINE_OFFER), signature),
        OfferTurned(7, "stale", "over, from the future, or for too long", 1_790_000_900),
        Carded(
            canonical.encode(
                Card(MACHINE_OFFER.operator, MACHINE_OFFER.node, CLAIMS, (), (), 1_790_000_000, BELONGING)
            )
        ),
    ]


def call_frames() -> list[msgspec.Struct]:
    """What stands in the listing is another chapter's: here the shape counts."""
    call, subject = bytes(range(16)), canonical.content_digest(b"subject")
    listed = call_protocol.DataListing(b"listing", SIGNATURE, b"card")
    return [
        call_protocol.CallPart(call, subject, GATEWAY.address, 0, 2, b"a sealed"),
        call_protocol.ReplyPart(call, 1, 2, b"answer"),
        call_protocol.CallRefused(call, "busy", "8 calls are answered here already"),
        call_protocol.OfferData((listed,), (canonical.content_digest(b"gone"),), (subject,)),
    ]


def job_relayed() -> list[msgspec.Struct]:
    def signed(ask: jobs.AskSegment | jobs.AskSealed) -> msgspec.Struct:
        return msgspec.structs.replace(ask, signature=VALIDATOR.sign(ask.signing_digest(DOMAINS["network"])))

    me, you, key = VALIDATOR.address, PROVIDER.address, bytes([9]) * 32
    return [
        signed(jobs.AskSegment(me, you, LEASE, 3, key, bytes(65))),
        jobs.SegmentServed(LEASE, 3, b"sealed"),
        signed(jobs.AskSealed(me, you, LEASE, CONTENT, 0, key, bytes(65))),
        jobs.SealedPart(LEASE, CONTENT, 0, 7, b"sealed"),
        jobs.NotServed(LEASE, "not_drawn"),
    ]


def _bytes_of(value: msgspec.Struct) -> dict[str, Any]:
    data = canonical.encode(value)
    return {
        "type": type(value).__name__,
        "value": jsonable(value),
        "bytes": hex0x(data),
        "digest": hex0x(canonical.content_digest(data)),
    }


def trees() -> dict[str, Any]:
    def leaves(count: int) -> list[Digest]:
        return [canonical.content_digest(b"leaf %d" % number) for number in range(count)]

    return {
        "leaf": "keccak(0x00 || value); node: keccak(0x01 || left || right); without right neighbour: moves up",
        "trees": [
            {
                "values": jsonable(leaves(count)),
                "root": hex0x(merkle.root(leaves(count))),
                "proofs": [jsonable(merkle.proof(leaves(count), index)) for index in range(count)],
            }
            for count in (0, 1, 2, 3, 4, 5, 7, 8, 13)
        ],
    }


def draws() -> dict[str, Any]:
    beacon, root = canonical.content_digest(b"beacon"), canonical.content_digest(b"root")
    at = (beacon, PROVIDER.address, RECEIPT.epoch, root)
    return {
        "lot": "keccak(beacon || provider || uint64 epoch || root || uint32 index), drawn iff lot * 10^6 >> 256 < rate",
        "beacon": hex0x(beacon),
        "provider": hex0x(PROVIDER.address),
        "epoch": RECEIPT.epoch,
        "root": hex0x(root),
        "lots": [hex(lot(*at, index)) for index in range(8)],
        "drawn_of_100": {str(rate): list(drawn(*at, 100, rate)) for rate in (1, 10_000, 250_000, 1_000_000)},
        "evidence": {
            "case": hex0x(case_of(RECEIPT, TRANSCRIPT)),
            "list": hex0x(canonical.digest(ListCase(PROVIDER.address, RECEIPT.epoch, root, EPOCH_LIST))),
            "cleared": hex0x(canonical.digest(ClearedCase(root, (0, 2, 5)))),
        },
    }


def segments() -> dict[str, Any]:
    """A lease of five segments from its terms to the auditor that the beacon draws."""
    domain = leases_domain(CHAIN_ID, Address(b"\x1e" * 20))
    digests = [canonical.content_digest(bytes([n])) for n in range(10)]
    spec, resources, given, expected, beacon, secret, salt = digests[:7]
    terms = Terms(
        GATEWAY.address,
        PROVIDER.address,
        *(spec, resources, given, expected),
        determinism=1,
        segments=8,
        units=2**62 + 100,
        compensation_wei=1_000_000,
        audit_fee_wei=50_000,
        start_by_s=1_700_000_060,
        deadline_s=1_700_003_600,
        nonce=trap_nonce(secret),
    )
    lease = terms.lease_id(domain)
    states = [canonical.content_digest(b"state" + bytes([n])) for n in range(6)]
    commitment = Commitment(states, (10, 2**62, 0, 7, 1))
    drawn_ = draw(beacon, spec, commitment.root, lease, 5, 1_000_000)
    lots = [auditor_lot(drawn_.seed, attempt) for attempt in range(4)]
    seats = [Seat(Address(bytes([n]) * 20), weight) for n, weight in ((1, 50), (2, 0), (3, 30), (4, 20))]
    picked = [pick(one, seats, (seats[3].owner,)) for one in lots]
    rules = RateRules(700_000, 990_000, 200_000, 200_000)
    return {
        "domain": {
            "name": domain.name,
            "version": domain.version,
            "chain_id": CHAIN_ID,
            "contract": hex0x(domain.contract),
        },
        "terms": {
            name: hex0x(one) if isinstance(one, bytes) else one
            for name, one in msgspec.structs.asdict(terms).items()
        },
        "lease": hex0x(lease),
        "states": [hex0x(one) for one in states],
        "meters": commitment.meters,
        "results": [hex0x(commitment.result(index)) for index in range(6)],
        "root": hex0x(commitment.root),
        "proofs": [[hex0x(one) for one in commitment.open(index).proof] for index in range(6)],
        "beacon": hex0x(beacon),
        "seed": hex0x(drawn_.seed),
        "segment": drawn_.segment,
        "unit": hex(drawn_unit(drawn_.seed, commitment.meters[-1])),
        "other": commitment.show(drawn_.segment, drawn_.seed)[1],
        "lots": [hex(one) for one in lots],
        "seats": [[hex0x(one.owner), one.weight] for one in seats],
        "picked_without_the_last": [hex0x(one) if one else None for one in picked],
        "sealed": {
            "auditor": hex0x(VALIDATOR.address),
            "salt": hex0x(salt),
            "digest": hex0x(sealed_result(commitment.result(1), VALIDATOR.address, lease, salt)),
        },
        "trap": {
            "secret": hex0x(secret),
            "digests": [hex0x(trap_digest(secret, index)) for index in range(3)],
            "bait": [is_bait(secret, index, 4) for index in range(5)],
            "bait_of_one": [is_bait(secret, index, 1) for index in range(2)],
        },
        "rates_ppm": [
            [stake, valid, rate_ppm(rules, stake, 1_000_000, valid)]
            for stake in (0, 1_000_000, 10_000_000, 50_000_000, 100_000_000)
            for valid in (0, 9, 10, 99, 10_000)
        ],
    }


def offers() -> dict[str, Any]:
    measurement = MachineMeasurement(
        PROVIDER.address,
        VALIDATOR.address,
        serial=7,
        fields=int(
            offer_protocol.Field.GPU
            | offer_protocol.Field.COORDINATE
            | offer_protocol.Field.RELIABILITY
            | offer_protocol.Field.PROFILE
        ),
        hardware="",
        cpu_milli=0,
        memory_bytes=0,
        gpu="h100",
        gpus=8,
        region="",
        bandwidth_kbps=0,
        reliability_ppm=998_500,
        x_us=-12_345,
        y_us=6_789,
        z_us=-1,
        height_us=450,
        links_per_s_milli=383_000,
        links_at_once_per_s_milli=21_448_000,
        findings=canonical.content_digest(b"findings"),
        at_s=1_790_000_100,
    )
    signed: list[tuple[MachineOffer | MachineMeasurement, Key]] = [
        (MACHINE_OFFER, PROVIDER),
        (measurement, VALIDATOR),
    ]
    return {
        "domain": _domain(DOMAINS["network"]),
        "statements": [
            {
                "type": type(it).__name__,
                "value": jsonable(it),
                "bytes": hex0x(canonical.encode(it)),
                "struct_hash": hex0x(it.struct()),
                "signing_digest": hex0x(offer_protocol.signed_digest(it, DOMAINS["network"])),
                "secret": hex0x(key.secret()),
                "signer": hex0x(key.address),
                "signature": hex0x(key.sign(offer_protocol.signed_digest(it, DOMAINS["network"]))),
            }
            for it, key in signed
        ],
        "belonging": {
            "value": jsonable(BELONGING),
            "bytes": hex0x(canonical.encode(BELONGING)),
            "struct_hash": hex0x(BELONGING.struct()),
            "signing_digest": hex0x(BELONGING.signing_digest(DOMAINS["network"])),
            "owner_secret": hex0x(GATEWAY.secret()),
            "account_secret": hex0x(PROVIDER.secret()),
        },
    }


def stakes() -> dict[str, Any]:
    """Every call about delegated stake as bytes, and a history: what all could claim after each reward."""
    validator, ann, bob = (Address(bytes([n]) * 20) for n in (0xA1, 0x01, 0x02))
    at = Addresses(*(Address(bytes([n + 1]) * 20) for n in range(len(Addresses.__struct_fields__))))
    chain = TwinChain(CHAIN_ID, at, TOKEN, LOCAL)
    delay_s, codec = LOCAL.unbond_delay_s, Codec(at)
    begins_s = 1_700_000_000 // delay_s * delay_s

    def do(sender: Address, call: calls.Call, at_s: int) -> None:
        done = chain.execute(call, sender, BlockContext(at_s, at_s, bytes(32)))
        assert isinstance(done, tuple), f"{call}: {done}"

    for who in (validator, ann, bob):
        do(TOKEN, calls.Transfer(who, 10**6), begins_s)
    for who, spender in ((validator, at.registry), (ann, at.delegations), (bob, at.delegations)):
        do(who, calls.Approve(spender, 10**6), begins_s)
    do(TOKEN, calls.Approve(at.delegations, 10**6), begins_s)
    do(validator, calls.Register(Role.VALIDATOR, Digest(bytes(32))), begins_s)
    do(validator, calls.Bond(1_000), begins_s)
    script: tuple[tuple[int, str, Address, calls.Call], ...] = (
        (1, "ann", ann, calls.DelegateStake(validator, 700)),
        (2, "validator", validator, calls.AnnounceCommission(1_000)),
        (delay_s + 5, "bob", bob, calls.DelegateStake(validator, 1_300)),
        (2 * delay_s, "anyone", TOKEN, calls.PayReward(validator, 1_001)),
        (2 * delay_s + 1, "validator", validator, calls.Bond(5_000)),
        (3 * delay_s, "anyone", TOKEN, calls.PayReward(validator, 1_001)),
        (3 * delay_s + 1, "ann", ann, calls.UndelegateStake(validator, 300)),
        (3 * delay_s + 2, "bob", bob, calls.ClaimReward(validator)),
        (3 * delay_s + 3, "validator", validator, calls.Unbond(5_500)),
        (3 * delay_s + 4, "anyone", TOKEN, calls.PayReward(validator, 777)),
        (4 * delay_s + 1, "ann", ann, calls.WithdrawStake(validator)),
    )
    history: list[dict[str, Any]] = []
    for after_s, name, sender, call in script:
        now_s = begins_s + after_s
        do(sender, call, now_s)
        pool = chain.delegations.pool(validator)
        history.append(
            {
                "at_s": now_s,
                "by": name,
                "call": type(call).__name__,
                "amount": getattr(call, "amount", getattr(call, "bps", None)),
                "data": hex0x(codec.encode(call)[1]),
                "votes": chain.registry.validator_stake(validator),
                "ann": chain.delegations.position(validator, ann, now_s).earned,
                "bob": chain.delegations.position(validator, bob, now_s).earned,
                "unclaimed": pool.unclaimed,
            }
        )
    return {"delay_s": delay_s, "validator": hex0x(validator), "own": 1_000, "history": history}


def vault_statements() -> dict[str, Any]:
    """A dataset's names, the statements about it, and a log of three uses with a proof of each."""
    owner, requester, network = PROVIDER, Key(bytes(31) + b"\x04"), DOMAINS["network"]
    dataset = vaults.dataset_id(owner.address, "hospital")
    request = vaults.AccessRequest(
        dataset=dataset,
        requester=requester.address,
        seal_to=bytes([10]) * 32,
        operation=vaults.Operation.QUERY,
        code=bytes(32),
        purpose=canonical.content_digest(b"how long do patients stay?"),
        epsilon_micro=2_000_000,
        uses=40,
        price_wei=10**9,
        expires_s=1_700_086_400,
        nonce=bytes([11]) * 32,
    )
    grant = vaults.Grant(
        dataset,
        request.struct(),
        requester.address,
        request.operation,
        request.code,
        2_000_000,
        40,
        1_700_086_400,
        3,
    )
    uses = [
        vaults.Use(
            dataset,
            index,
            grant.struct(),
            requester.address,
            canonical.digest(ORDER),
            500_000,
            500_000 * (index + 1),
            500_000 * (index + 1),
            canonical.content_digest(b"result %d" % index),
            1_700_000_100 + index,
        )
        for index in range(3)
    ]
    listing = vaults.Listing(
        dataset, owner.address, bytes([12]) * 32, bytes([13]) * 32, bytes([14]) * 32, bytes([15]) * 32, 1
    )
    leaves = [use.struct() for use in uses]
    signed = ((request, requester), (grant, owner), (uses[1], owner), (listing, owner))
    return {
        "domain": _domain(network),
        "owner": hex0x(owner.address),
        "name": "hospital",
        "dataset": hex0x(dataset),
        "subjects": {kind: hex0x(vaults.subject(dataset, kind)) for kind in ("vault", "query", "training")},
        "statements": [
            {
                "type": type(one).__name__,
                "domain": "network",
                "value": jsonable(one),
                "bytes": hex0x(canonical.encode(one)),
                "struct_hash": hex0x(one.struct()),
                "signing_digest": hex0x(one.signing_digest(network)),
                "secret": hex0x(key.secret()),
                "signer": hex0x(key.address),
                "signature": hex0x(key.sign(one.signing_digest(network))),
            }
            for one, key in signed
        ],
        "log": {
            "uses": jsonable(uses),
            "leaves": jsonable(leaves),
            "root": hex0x(vaults.log_root(leaves)),
            "proofs": [jsonable(vaults.log_proof(leaves, index)) for index in range(3)],
        },
        "sealed_call": sealed_call(dataset, requester),
        "pot": pot_of_three(owner, requester),
    }


def sealed_call(dataset: Digest, requester: Key) -> dict[str, Any]:
    """A call as its requester signs it, before it is sealed."""
    network = DOMAINS["network"]
    call = SealedCall(
        dataset,
        requester.address,
        bytes([10]) * 32,
        bytes([16]) * 32,
        1_700_000_000,
        1_700_000_590,
        canonical.encode(AskStanding()),
    )
    signed = msgspec.structs.replace(call, signature=requester.sign(call.signing_digest(network)))
    return {
        "value": jsonable(signed),
        "signing_digest": hex0x(call.signing_digest(network)),
        "bytes": hex0x(canonical.encode(signed)),
    }


def pot_of_three(owner: Key, payer: Key) -> dict[str, Any]:
    """A pot, its scores, and what each participant earns."""
    participants = tuple(sorted((owner.address, GATEWAY.address, VALIDATOR.address)))
    evaluator = Key(bytes(31) + b"\x05")
    pot = pots.Pot(
        payer.address,
        evaluator.address,
        bytes([16]) * 32,
        10**9 + 7,
        0,
        1_700_040_000,
        1_700_086_400,
        1_000,
        bytes([17]) * 32,
        participants,
        (bytes(20), participants[0], payer.address),
    )
    scores = pots.Scores(pot.struct(), bytes([18]) * 32, (2**40, 0, 2**39))
    return {
        "pot": jsonable(pot),
        "id": hex0x(pot.struct()),
        "scores": jsonable(scores),
        "digest": hex0x(scores.struct()),
        "earned_wei": list(pots.earned_wei(pot.amount_wei, pot.full, scores.scores)),
        "referrals_wei": [
            pots.referral_wei(share, pot.referral_bps)
            for share in pots.earned_wei(pot.amount_wei, pot.full, scores.scores)
        ],
        "full": 2**41,
        "earned_of_full_wei": list(pots.earned_wei(pot.amount_wei, 2**41, scores.scores)),
    }


def everything() -> Iterator[tuple[Path, str]]:
    """(file, what must stand in it)"""
    kinds = (
        ("statements", statements),
        ("frames", frames),
        ("merkle", trees),
        ("draw", draws),
        ("segments", segments),
        ("offers", offers),
        ("stakes", stakes),
        ("vaults", vault_statements),
    )
    for name, make in kinds:
        yield FOLDER / f"{name}.json", json.dumps(make(), indent=1) + "\n"


def main() -> int:
    stale = [path for path, text in everything() if not path.exists() or path.read_text() != text]
    if "--check" not in sys.argv:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, text in everything():
            path.write_text(text)
    for path in stale:
        print(
            f"{path.name} {'is stale: run scripts/make_vectors.py' if '--check' in sys.argv else 'written'}"
        )
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
