"""What a node keeps and reads: transcripts, the chain's story, the configuration, its status."""

from pathlib import Path
from random import Random

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from clusterai.audit.adapters.sealing import SealKey
from clusterai.audit.core.opening import (
    MAX_PART_BYTES,
    MAX_PARTS,
    MAX_REQUEST_BYTES,
    ListOpening,
    ReceiptOpening,
    unpack_answer,
)
from clusterai.ledger.adapters.follower import Cursor
from clusterai.ledger.core import events
from clusterai.node.adapters.chainlog import ChainLog, OtherNetwork
from clusterai.node.adapters.openings import opened, prepared
from clusterai.node.adapters.vault import Vault, WrongKey
from clusterai.node.adapters.watch import Metrics, StatusFile
from clusterai.node.config import BadConfig, load_config
from clusterai.node.core.leases import OpenEpoch, Prepare
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import (
    MAX_RECEIPTS_PER_EPOCH,
    Answer,
    AskEpoch,
    EpochOpened,
    Transcript,
)
from clusterai.protocol.statements import EPOCH_LIST, Order, Receipt
from tests.rooms.node.statuses import status

SECRET = b"s" * 32
ADDRESS, DIGEST = Address(bytes(20)), Digest(bytes(32))


def order(number: int) -> Digest:
    return Digest(number.to_bytes(32))


def transcript(number: int = 1, size: int = 100) -> Transcript:
    it = Order(ADDRESS, ADDRESS, DIGEST, DIGEST, DIGEST, 1, 2, 7, 99, order(number))
    return Transcript(it, bytes(65), "inference", b"what was asked" * size, Answer((1, 2, 3), "stop"))


def unlike(number: int) -> Receipt:
    """A receipt that nothing in the others makes shorter, of the most bytes."""
    noise = Random(number)
    digest = [noise.randbytes(32) for _ in range(3)]
    address = [noise.randbytes(20) for _ in range(2)]
    return Receipt(
        digest[0], address[0], address[1], digest[1], digest[2], 2**32 - 1, 2**32 - 1, 2**63 - 1, 2**40 - 1
    )


def receipt(number: int) -> Receipt:
    return Receipt(order(number), ADDRESS, ADDRESS, DIGEST, DIGEST, 1, 2, 3, 4)


# --- vault ---


def test_transcripts_come_back_after_a_restart(tmp_path: Path) -> None:
    """What was kept is there for who has the hot key, by epoch and order."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    vault.put(4, order(1), transcript(1))
    vault.put(4, order(1), transcript(1))
    vault.close()
    again = Vault(tmp_path / "v.sqlite", SECRET)
    assert again.get(4, order(1)) == transcript(1)
    assert again.get(5, order(1)) is None
    assert again.get(4, order(2)) is None
    again.close()


def test_nothing_readable_lies_on_disk(tmp_path: Path) -> None:
    """Neither requests nor keys stand in the files in the clear."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    vault.put(4, order(1), transcript())
    vault.close()
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"what was asked" not in raw
    assert SECRET not in raw


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    """A stolen folder without the hot key is refused by name."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    vault.put(4, order(1), transcript())
    vault.close()
    with pytest.raises(WrongKey):
        Vault(tmp_path / "v.sqlite", b"x" * 32)


def test_a_forgotten_epoch_is_gone_for_good(tmp_path: Path) -> None:
    """Its key and those before it are destroyed, in the file and in its log; later epochs stay."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    for epoch in (3, 4, 5):
        vault.put(epoch, order(epoch), transcript(epoch))
    raw_keys = [row[0] for row in vault._db.execute("select wrapped from epoch_key where epoch <= 4")]  # pyright: ignore[reportPrivateUsage]
    vault.forget(4)
    assert vault.epochs() == (5,)
    assert vault.get(4, order(4)) is None
    assert vault.get(5, order(5)) == transcript(5)
    vault.close()
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(raw_keys) == 2
    assert not any(wrapped in raw for wrapped in raw_keys)


# --- openings ---


def test_an_epoch_is_sealed_to_the_validator_alone(tmp_path: Path) -> None:
    """Drawn transcripts open with the validator's key; what was never kept is left out."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    vault.put(4, order(1), transcript(1))
    key = SealKey.fresh()
    ask = AskEpoch(ADDRESS, ADDRESS, 4, (0, 1), key.public, bytes(65))
    effect = OpenEpoch(
        ADDRESS, ask, (receipt(1), receipt(2)), (bytes(65),) * 2, ((0, order(1)), (1, order(2)))
    )
    frame = canonical.decode(opened(vault, ADDRESS, effect).body, EpochOpened)
    assert [index for index, _ in frame.sealed] == [0]
    assert canonical.decode(key.unseal(frame.sealed[0][1]) or b"", Transcript) == transcript(1)
    assert SealKey.fresh().unseal(frame.sealed[0][1]) is None
    vault.close()


def test_an_opening_stays_within_a_frame(tmp_path: Path) -> None:
    """Transcripts that don't fit are left for the next question."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    for number in range(8):
        vault.put(4, order(number), transcript(number, size=50_000))
    key = SealKey.fresh()
    ask = AskEpoch(ADDRESS, ADDRESS, 4, tuple(range(8)), key.public, bytes(65))
    receipts = tuple(receipt(number) for number in range(8))
    drawn = tuple((number, order(number)) for number in range(8))
    relay = opened(vault, ADDRESS, OpenEpoch(ADDRESS, ask, receipts, (bytes(65),) * 8, drawn))
    frame = canonical.decode(relay.body, EpochOpened)
    assert 0 < len(frame.sealed) < 8
    assert len(canonical.encode(relay)) < canonical.MAX_FRAME_BYTES
    vault.close()


def test_answers_for_the_chain(tmp_path: Path) -> None:
    """A receipt or the list, sealed or in the open, in as many parts as it takes; none for what isn't there."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    vault.put(4, order(1), transcript(1))
    key = SealKey.fresh()
    receipts = (receipt(1), receipt(2))
    one = prepared(vault, Prepare(4, 0, ADDRESS, receipts, order(1), key.public))
    assert isinstance(unpack_answer(one.parts, key.unseal), ReceiptOpening)
    whole = prepared(vault, Prepare(4, EPOCH_LIST, ADDRESS, receipts, None, None)).parts
    assert unpack_answer(whole, key.unseal) == ListOpening(receipts)
    assert prepared(vault, Prepare(4, 1, ADDRESS, receipts, order(2), None)).parts == ()
    vault.close()


def test_the_longest_list_fits_the_chain(tmp_path: Path) -> None:
    """8,192 receipts in which nothing repeats; a provider that died half way gives parts that fit those before."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    key = SealKey.fresh()
    many = tuple(unlike(number) for number in range(MAX_RECEIPTS_PER_EPOCH))
    demand = Prepare(4, EPOCH_LIST, ADDRESS, many, None, key.public)
    first = prepared(vault, demand).parts
    assert 1 < len(first) <= MAX_PARTS
    assert max(map(len, first)) <= MAX_PART_BYTES
    again = prepared(vault, msgspec.structs.replace(demand, seal_to=None)).parts
    mixed = [*first[:20], *again[20:]]
    assert unpack_answer(mixed, key.unseal) == ListOpening(many)
    vault.close()


def test_the_longest_transcript_fits_the_chain(tmp_path: Path) -> None:
    """The longest request that is taken, and an answer of the most tokens, each of the most bytes."""
    vault = Vault(tmp_path / "v.sqlite", SECRET)
    longest = msgspec.structs.replace(
        transcript(1),
        request=Random(7).randbytes(MAX_REQUEST_BYTES),
        answer=Answer((2**24,) * 131_072, "x" * 16),
    )
    vault.put(4, order(1), longest)
    many = tuple(receipt(number) for number in range(MAX_RECEIPTS_PER_EPOCH))
    parts = prepared(vault, Prepare(4, 1, ADDRESS, many, order(1), None)).parts
    assert len(parts) <= MAX_PARTS
    assert max(map(len, parts)) <= MAX_PART_BYTES
    opening = unpack_answer(parts, lambda _: None)
    assert isinstance(opening, ReceiptOpening)
    assert opening.transcript == longest
    vault.close()


# --- the chain's story ---


def test_the_chains_story_is_told_again(tmp_path: Path) -> None:
    """Events, the times they were heard at, and the cursor come back as they were appended, rollbacks included."""
    log = ChainLog(tmp_path / "c.sqlite", DIGEST)
    assert log.cursor() is None
    first = [events.Barred(ADDRESS), events.Block(7, 1000)]
    log.append(first, Cursor(7, ((7, bytes(32)),)), 1001.5)
    log.append([events.RolledBack(6)], Cursor(6), 1002.5)
    log.close()
    again = ChainLog(tmp_path / "c.sqlite", DIGEST)
    assert list(again.events()) == [*((1001.5, it) for it in first), (1002.5, events.RolledBack(6))]
    assert again.cursor() == Cursor(6)
    again.forget()
    assert (list(again.events()), again.cursor()) == ([], None)
    again.close()


def test_empty_blocks_take_no_room(tmp_path: Path) -> None:
    """A quiet chain's blocks replace each other; what happened between stays."""
    log = ChainLog(tmp_path / "c.sqlite", DIGEST)
    for number in range(100):
        if number == 50:
            log.append([events.Barred(ADDRESS), events.Block(number, number)], Cursor(number), number)
        else:
            log.append([events.Block(number, number)], Cursor(number), number)
    told = [events.Block(49, 49), events.Barred(ADDRESS), events.Block(50, 50), events.Block(99, 99)]
    assert [event for _, event in log.events()] == told
    log.close()


def test_another_chain_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A folder that knows one chain refuses another."""
    ChainLog(tmp_path / "c.sqlite", DIGEST).close()
    with pytest.raises(OtherNetwork):
        ChainLog(tmp_path / "c.sqlite", Digest(b"x" * 32))


# --- configuration ---

GOOD = """
data = "data"
network = "/etc/clusterai/network.json"
key = "hot.key"
owner = "0x4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e"
[[gateways]]
owner = "0x4747474747474747474747474747474747474747"
url = "wss://gateway.example:8443/"
[[models]]
name = "tiny"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def test_a_configuration_is_read_and_overridden(tmp_path: Path) -> None:
    """Paths are of the file's folder, and the environment wins."""
    environment = {"CLUSTERAI_NODE_METRICS_PORT": "9100", "CLUSTERAI_NODE_SURVIVES": "process", "HOME": "/"}
    config = load_config(written(tmp_path, GOOD), environment)
    assert config.data == tmp_path / "data"
    assert config.network == Path("/etc/clusterai/network.json")
    assert (config.metrics_port, config.survives) == (9100, "process")
    assert config.owner_address() == b"N" * 20
    assert config.gateway_urls() == {b"G" * 20: "wss://gateway.example:8443/"}
    assert load_config(written(tmp_path, GOOD), {}).survives == "power"


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ('owner = "0x4e', 'owner = "0x4'),
        ('owner = "0x47', 'owner = "0xzz'),
        ("wss://", "ws://"),
        ('name = "tiny"', 'name = "tiny"\nslots = 0'),
        ('name = "tiny"', 'name = "tiny"\nsecret = "x"'),
        ("[[models]]", '[[models]]\nname = "tiny"\n[[models]]'),
        ('data = "data"', ""),
        ('data = "data"', 'data = "data'),
        ('data = "data"', 'data = "data"\nsurvives = "anything"'),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, was: str, now: str) -> None:
    """What is malformed, unknown, missing, twice or out of range is an error with the file's name."""
    path = written(tmp_path, GOOD.replace(was, now, 1))
    with pytest.raises(BadConfig, match=r"node\.toml"):
        load_config(path, {})


@pytest.mark.parametrize(
    "cheat",
    ['[[models]]\nname = "tiny"\nweights = "tiny-q3"', '[[models]]\nname = "tiny"\n[jobs]\nlies = true'],
)
def test_a_daemon_cannot_be_configured_to_cheat(tmp_path: Path, cheat: str) -> None:
    """Neither other weights nor lies about jobs are a setting; villains are programs of their own."""
    path = written(tmp_path, GOOD[: GOOD.index("[[models]]")] + cheat)
    with pytest.raises(BadConfig, match=r"weights|lies"):
        load_config(path, {})


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    """There is no default network to join."""
    with pytest.raises(BadConfig):
        load_config(tmp_path / "nowhere.toml", {})


# --- status ---


def test_a_status_is_written_when_it_changes(tmp_path: Path) -> None:
    """Readers see whole statuses, and the time of the last change."""
    file = StatusFile(tmp_path / "status.json")
    file.write(status(at_s=1))
    file.write(status(at_s=2))
    assert msgspec.json.decode((tmp_path / "status.json").read_bytes())["at_s"] == 1
    file.write(status(at_s=3, running=1))
    assert msgspec.json.decode((tmp_path / "status.json").read_bytes())["at_s"] == 3
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_metrics_tell_money_links_models_and_refusals() -> None:
    """A scrape reads the present status, and counts what was refused and noted by name."""
    metrics = Metrics(lambda: status(owed_wei=123))
    metrics.refused["busy"] += 2
    metrics.noted["disputed"] += 1
    registry = CollectorRegistry()
    registry.register(metrics)
    text = generate_latest(registry).decode()
    for line in (
        "clusterai_node_owed_wei 123.0",
        "clusterai_node_receipts_total 3.0",
        'clusterai_node_link_up{gateway="0x4747474747474747474747474747474747474747"} 1.0',
        'clusterai_node_model_ready{model="tiny"} 1.0',
        'clusterai_node_refused_total{code="busy"} 2.0',
        'clusterai_node_noted_total{what="disputed"} 1.0',
    ):
        assert line in text, text
