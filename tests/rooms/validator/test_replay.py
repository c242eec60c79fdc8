"""A receipt audited again by whoever doubts it."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from clusterai.audit.core.evidence import Bundle
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address
from clusterai.protocol.messages import Transcript
from clusterai.protocol.statements import Receipt
from clusterai.validator.adapters.evidence import EvidenceStore
from clusterai.validator.core.words import Forget, Keep, Noted
from clusterai.validator.replay import BadFile, Report, bundle_of, replay, replay_bundle
from clusterai.work.inference.adapters.tiny import TinyEngine
from tests.rooms.validator.test_villains import EditsTokens, OverclaimsUsage, SkipsPrompt, SwapsWeights
from tests.rooms.validator.theatre import MODEL, NETWORK, Provider, Stage, key

OWNERS = {key(f"{name} hot").address: key(name).address for name in ("gateway 0", "provider")}


def served(villain: type[Provider] = Provider, count: int = 1) -> list[tuple[Receipt, bytes, Transcript]]:
    stage = Stage(villain)
    stage.serve(count)
    return stage.provider.open


def replayed(receipt: Receipt, signature: bytes, transcript: Transcript) -> Report:
    async def play() -> Report:
        return await replay(transcript, receipt, TinyEngine(MODEL), signature, NETWORK, OWNERS.get)

    return asyncio.run(play())


def test_an_honest_receipt_is_right() -> None:
    """Every step is right, every token is drawn again, and the report says so to people and to programs."""
    ((receipt, signature, transcript),) = served()
    report = replayed(receipt, signature, transcript)
    assert report.outcome == "right"
    assert all(step.right for step in report.steps)
    assert report.findings is not None
    assert report.findings.matches == report.findings.tokens == len(transcript.answer.tokens)
    assert dict(report.histogram())["the same"] == len(report.gaps)
    text = "\n".join(report.lines())
    assert "outcome: right" in text
    assert "####" in text
    assert msgspec.json.decode(msgspec.json.encode(report.plain()))["outcome"] == "right"


@pytest.mark.parametrize("villain", [SwapsWeights, EditsTokens, SkipsPrompt])
def test_wrong_tokens_speak_for_fraud(villain: type[Provider]) -> None:
    """Altered weights, edited tokens and a skipped prompt show as gaps that honest arithmetic doesn't make."""
    reports = [replayed(*it) for it in served(villain, 4)]
    assert all(report.outcome in ("wrong", "suspicious") for report in reports)
    assert max(gap for report in reports for gap in report.gaps) > 0.1


def test_wrong_usage_is_named_without_an_engine() -> None:
    """What needs no engine is checked first, and the tokens are not drawn for a receipt that is wrong already."""
    ((receipt, signature, transcript),) = served(OverclaimsUsage)
    report = replayed(receipt, signature, transcript)
    assert report.outcome == "wrong"
    assert report.findings is None
    assert [step.name for step in report.steps if step.right is False] == ["usage"]


def test_another_answer_is_not_the_receipts() -> None:
    """A transcript whose answer the receipt doesn't name is refused by its digest."""
    ((receipt, signature, transcript),) = served()
    changed = replace(transcript, answer=replace(transcript.answer, tokens=transcript.answer.tokens[:-1]))
    report = replayed(receipt, signature, changed)
    assert report.outcome == "wrong"
    assert report.steps[0].detail == "the answer is not the receipt's"


def test_strangers_signatures_are_named() -> None:
    """A malformed signature and one by an unknown key are wrong; without a registry they are only shown."""
    ((receipt, signature, transcript),) = served()
    forged = replace(transcript, order_signature=bytes(65))
    assert replayed(receipt, signature, forged).outcome == "wrong"
    assert replayed(receipt, transcript.order_signature, transcript).outcome == "wrong"

    async def offline() -> Report:
        return await replay(transcript, receipt, None, signature, NETWORK)

    report = asyncio.run(offline())
    assert report.outcome == "unchecked"
    assert [step.right for step in report.steps if "signature" in step.name] == [None, None]


def bundle(altered: float = 0.5) -> Bundle:
    stage = Stage(SwapsWeights if altered else Provider)
    stage.serve(3)
    stage.commit()
    stage.play(58)
    return next(iter(stage.seat.kept.values()))


def test_evidence_is_sealed_then_shown_then_gone(tmp_path: Path) -> None:
    """A kept case is unreadable on disk; behind a verdict it lies open and replays; the sealed file is deleted."""
    kept = bundle()
    evidence = canonical.digest(kept)
    provider, epoch = Address(kept.receipt.provider), kept.receipt.epoch
    store = EvidenceStore(tmp_path, bytes(32))
    store.keep(Keep(evidence, epoch, kept))
    assert store.load(provider, epoch, evidence) == kept
    assert EvidenceStore(tmp_path, bytes(31) + b"\1").load(provider, epoch, evidence) is None
    assert all(
        kept.transcript.request not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
    file = store.accused(Noted("accused", provider, epoch, kept.index, "wrong_tokens: …", evidence))
    store.forget(Forget(provider, epoch, (evidence,)))
    assert store.load(provider, epoch, evidence) is None
    assert file is not None

    async def play() -> Report:
        return await replay_bundle(bundle_of(file), TinyEngine(MODEL), NETWORK, OWNERS.get)

    report = asyncio.run(play())
    assert report.outcome in ("wrong", "suspicious")
    assert report.steps[-1].name == "commitment"
    assert report.steps[-1].right


def test_a_case_moved_to_another_place_is_found_out() -> None:
    """The path proves one position of one commitment."""
    kept = bundle(altered=0)

    async def play(it: Bundle) -> Report:
        return await replay_bundle(it, None, NETWORK, OWNERS.get)

    assert asyncio.run(play(kept)).steps[-1].right
    moved = replace(kept, index=(kept.index + 1) % kept.count)
    assert asyncio.run(play(moved)).outcome == "wrong"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"bundle": 5}', '{"bundle": "0xzz"}', '{"bundle": "0x00"}', "[1]"]
)
def test_a_file_that_is_no_verdict_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, it is a case or a named error."""
    path = tmp_path / "verdict.json"
    path.write_text(text)
    with pytest.raises(BadFile):
        bundle_of(path)
