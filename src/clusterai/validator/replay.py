"""One receipt audited again, on any machine that has the model: what the validator saw, for whoever doubts it.

    report = await replay(transcript, receipt, engine, signature, network, owner_of)
    for line in report.lines(): print(line)

Anybody with the transcript can run it: the gateway has it, the validator keeps it behind a verdict (`bundle_of` reads its
file). It needs no chain; without `owner_of` it shows who signed, and doesn't judge whether they may.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from clusterai.audit.core import sequential
from clusterai.audit.core.evidence import Bundle, case_of
from clusterai.audit.core.recount import unproven_transcript
from clusterai.protocol import canonical, merkle
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.messages import Transcript
from clusterai.protocol.signing import BadSignature, recover
from clusterai.protocol.statements import Order, Receipt, signing_digest
from clusterai.work import KINDS
from clusterai.work.kind import Findings

EDGES = (0.0, 0.02, 0.1, 0.3, 0.6, 1.0, 2.0)
"""Of the histogram, in the kind's unit (logits); for people, the test's own bins are the model card's."""


class BadFile(ValueError):
    """{path} is no verdict of a validator, or it holds no case: {why}."""


class Step(msgspec.Struct, frozen=True):
    """One thing that was looked at; `right` is None where it could not be judged here."""

    name: str
    right: bool | None
    detail: str


class Report(msgspec.Struct, frozen=True):
    """What a replay found.

    Attributes:
        receipt_id: the order's digest.
        evidence: what a verdict on this case carries.
        outcome: "right": all fits and the tokens speak for honest work. "wrong": something can't be, or the tokens alone
            would convict. "suspicious": they speak for fraud, and one receipt is too little to convict. "unchecked":
            no engine drew them again.
        gaps: per token, how far it is from being the one drawn, in the kind's unit; inf where nothing explains it.
        tokens: the answer's.
    """

    receipt_id: Digest
    evidence: Digest
    outcome: Literal["right", "wrong", "suspicious", "unchecked"]
    steps: tuple[Step, ...]
    findings: Findings | None
    gaps: tuple[float, ...]
    tokens: tuple[int, ...]

    def histogram(self) -> tuple[tuple[str, int], ...]:
        """(range of gaps, tokens in it)"""
        bounds = [-math.inf, *EDGES, math.inf]
        labels = ["the same", *(f"off by <= {edge:g}" for edge in EDGES[1:]), f"off by > {EDGES[-1]:g}"]
        counts = [sum(low < gap <= high for gap in self.gaps) for low, high in itertools.pairwise(bounds)]
        return tuple(zip(labels, counts, strict=True))

    def lines(self) -> list[str]:
        """For a terminal."""
        marks = {True: "ok", False: "WRONG", None: "?"}
        out = [f"receipt {hex0x(self.receipt_id)}", f"evidence {hex0x(self.evidence)}", ""]
        out += [f"  {marks[step.right]:>5}  {step.name}: {step.detail}" for step in self.steps]
        if self.gaps:
            most = max(count for _, count in self.histogram())
            out.append("")
            for label, count in self.histogram():
                bar = "#" * math.ceil(40 * count / most) if count else ""
                out.append(f"  {label:>14} {count:6d}  {bar}")
        out += ["", f"outcome: {self.outcome}"]
        return out

    def plain(self) -> dict[str, object]:
        """For JSON: bytes as hex, infinite gaps as null."""
        return {
            "receipt_id": hex0x(self.receipt_id),
            "evidence": hex0x(self.evidence),
            "outcome": self.outcome,
            "steps": [{"name": it.name, "right": it.right, "detail": it.detail} for it in self.steps],
            "findings": None
            if self.findings is None
            else {name: getattr(self.findings, name) for name in Findings.__struct_fields__},
            "convicts_at_milli": sequential.BOUND_MILLI,
            "tokens": self.tokens,
            "gaps": [None if math.isinf(gap) else round(gap, 4) for gap in self.gaps],
            "histogram": dict(self.histogram()),
        }


async def replay(
    transcript: Transcript,
    receipt: Receipt,
    engine: Any,
    signature: bytes | None = None,
    network: Domain | None = None,
    owner_of: Callable[[Address], Address | None] | None = None,
) -> Report:
    """Check everything about one receipt that can be checked without its epoch.

    Args:
        engine: of the order's model and its kind of work, with the true weights; None checks all but the tokens.
        signature: the provider's on the receipt.
        network: the domain under which orders and receipts are signed; None leaves signatures out.
        owner_of: a key's owner in the Registry.

    Raises:
        Unfit, EngineFailed: the engine can't do it; nothing is said about the receipt.
    """
    steps = [_bound(receipt, transcript)]
    if network is not None:
        steps.append(_signed("order", transcript.order, transcript.order_signature, network, owner_of))
        if signature is not None:
            steps.append(_signed("receipt", receipt, signature, network, owner_of))
    steps += _recounted(receipt, transcript)
    findings: Findings | None = None
    gaps: list[float] = []
    kind = KINDS.get(transcript.kind)
    judge = None if kind is None or (kind.serves and engine is None) else kind.judge
    if kind is not None and judge is not None and not any(step.right is False for step in steps):
        answer = transcript.answer
        request = kind.decode(transcript.request)
        findings, gaps = await judge(engine, request, answer.tokens, answer.reason)
        steps.append(_drawn(findings, kind.gap_unit))
    return Report(
        receipt_id=Digest(receipt.order),
        evidence=case_of(receipt, transcript),
        outcome=_outcome(steps, findings),
        steps=tuple(steps),
        findings=findings,
        gaps=tuple(gaps),
        tokens=transcript.answer.tokens,
    )


async def replay_bundle(
    bundle: Bundle,
    engine: Any,
    network: Domain | None = None,
    owner_of: Callable[[Address], Address | None] | None = None,
) -> Report:
    """As `replay`, of what a validator kept: its place in the commitment is checked as well."""
    signature = None if bundle.signature == bytes(65) else bundle.signature
    report = await replay(bundle.transcript, bundle.receipt, engine, signature, network, owner_of)
    path = [Digest(step) for step in bundle.path]
    leaf = bundle.receipt.struct()
    placed = merkle.verify(Digest(bundle.root), leaf, bundle.index, bundle.count, path)
    step = Step("commitment", placed, f"receipt {bundle.index} of {bundle.count} under {hex0x(bundle.root)}")
    steps = (*report.steps, step)
    return msgspec.structs.replace(report, steps=steps, outcome=_outcome(steps, report.findings))


def bundle_of(path: Path) -> Bundle:
    """The case in a validator's verdict file.

    Raises:
        BadFile: not such a file, or it is of an epoch's list and holds no single receipt.
    """
    try:
        page = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        if "bundle" not in page:
            raise BadFile(f"{path} is a verdict on an epoch's list: there is no single receipt to replay")
        text = msgspec.json.decode(page["bundle"], type=str)
        return canonical.decode(bytes.fromhex(text.removeprefix("0x")), Bundle)
    except (OSError, msgspec.MsgspecError, Malformed, ValueError) as error:
        raise BadFile(f"{path} can't be replayed: {error}") from None


def _bound(receipt: Receipt, transcript: Transcript) -> Step:
    why = unproven_transcript(receipt, transcript)
    order = transcript.order
    if why is None and (order.provider, order.gateway, order.model) != (
        receipt.provider,
        receipt.gateway,
        receipt.model,
    ):
        why = "provider, gateway or model of order and receipt differ"
    return Step("digests", why is None, why or "receipt, order, request and answer name each other")


def _signed(
    name: str,
    statement: Order | Receipt,
    signature: bytes,
    network: Domain,
    owner_of: Callable[[Address], Address | None] | None,
) -> Step:
    role = "gateway" if isinstance(statement, Order) else "provider"
    owner = Address(statement.gateway if isinstance(statement, Order) else statement.provider)
    try:
        key = recover(signing_digest(statement, network), signature)
    except BadSignature:
        return Step(f"{name}'s signature", False, "malformed")
    detail = f"by key {checksummed(key)} for {role} {checksummed(owner)}"
    if owner_of is None:
        return Step(f"{name}'s signature", None, f"{detail} (not looked up in the Registry)")
    return Step(f"{name}'s signature", owner_of(key) == owner, detail)


def _recounted(receipt: Receipt, transcript: Transcript) -> list[Step]:
    order = transcript.order
    claimed = (receipt.input_units, receipt.output_units)
    price_wei = order.price_wei(*claimed)
    detail = f"{receipt.amount_wei} asked, {price_wei} agreed for this usage, capped at {order.cap_wei}"
    steps = [Step("price", receipt.amount_wei == price_wei <= order.cap_wei, detail)]
    kind = KINDS.get(transcript.kind)
    if kind is None:
        return [*steps, Step("usage", None, f"unknown kind of work {transcript.kind!r}")]
    try:
        found = kind.recount(kind.decode(transcript.request), transcript.answer.tokens)
    except Malformed as error:
        return [*steps, Step("usage", False, f"the request is malformed: {error}")]
    detail = f"{found[0]} in + {found[1]} out"
    if found != claimed:
        detail += f"; the receipt says {claimed[0]} + {claimed[1]}"
    return [*steps, Step("usage", found == claimed, detail)]


def _drawn(findings: Findings, unit: str) -> Step:
    weight = findings.weight_milli / 1000
    detail = f"{findings.matches} of {findings.tokens} came out the same"
    if findings.largest_gap_milli < 0:
        detail += ", one at least that nothing explains"
    else:
        detail += f", largest gap {findings.largest_gap_milli / 1000:.3f} {unit}"
    odds = f"{math.exp(min(abs(weight), 700)):.3g} to 1 for {'fraud' if weight > 0 else 'honest work'}"
    right = None if 0 < findings.weight_milli < sequential.BOUND_MILLI else findings.weight_milli <= 0
    return Step("tokens", right, f"{detail}; weight {weight:+.2f} nats, {odds}")


def _outcome(
    steps: Sequence[Step], findings: Findings | None
) -> Literal["right", "wrong", "suspicious", "unchecked"]:
    if any(step.right is False for step in steps):
        return "wrong"
    if findings is None:
        return "unchecked"
    return "right" if findings.weight_milli <= 0 else "suspicious"
