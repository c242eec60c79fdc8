"""Vaults of clinics in this process, with real files, grants and seals, and the way to them."""

import csv
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Operation, subject
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters.cohorts import Standings
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.hosting import Vault, open_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.terms import AskedFor
from clusterai.work.engine import Finish, TokenEvent
from clusterai.work.joint import KIND
from clusterai.work.joint.adapters.asking import Asking, Paid, Statistic, ask
from clusterai.work.joint.adapters.hosting import Shares
from clusterai.work.joint.adapters.threshold import SETTING
from clusterai.work.joint.core.question import question_of
from clusterai.work.joint.spec import Meet, Met, Question, Said, ShareOrder, Study, Way, decode_said
from clusterai.work.packed import bytes_of

NETWORK = network_domain(31415, Address(b"R" * 20))
ME = Identity(Key(b"\x07" * 32), b"\x08" * 32)
USE_WEI, MILLI_WEI = 7, 2
DELTA_PICO = 10_000
POLICY = Policy(
    operations=(Operation.JOINT,),
    grant_epsilon_micro=8 * MICRO,
    requester_epsilon_micro=8 * MICRO,
    total_epsilon_micro=20 * MICRO,
    milli_epsilon_wei=MILLI_WEI,
    use_wei=USE_WEI,
)


def standin(folder: Path) -> str:
    """A Python in which OpenFHE's shape can be imported, without its cryptography; the library itself where `CLUSTERAI_OPENFHE_PYTHON` names one."""
    if (real := os.environ.get(SETTING)) is not None:
        return real
    script = folder / "openfhe-python"
    if not script.exists():
        place = Path(__file__).resolve().parents[1] / "secagg" / "standin"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={place} exec {sys.executable} "$@"\n')
        script.chmod(0o755)
    return str(script)


def schema(high: int = 100) -> Schema:
    return Schema(
        columns=(
            Column(name="patient", kind="int", low=0, high=10**6),
            Column(name="age", kind="int", low=0, high=high),
            Column(name="dose", kind="float", low=0, high=50),
            Column(name="sick", kind="bool"),
            Column(name="note", kind="text"),
        ),
        unit="patient",
    )


def patients(seed: int, count: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    age = draw.integers(20, 90, count)
    return {
        "patient": np.arange(count) + seed * 10_000,
        "age": age,
        "dose": np.clip(0.4 * age + 3 + draw.normal(0, 2, count), 0, 50).round(3),
        "sick": draw.random(count) < 0.3,
        "note": np.full(count, "private"),
    }


class Clinic:
    """A vault, and the way to it, which can be cut.

    Attributes:
        dead_at: where it is gone: "order", or the name of a call, or of a frame in it.
    """

    grant: Digest
    subject: Digest
    dataset: Digest
    snapshot: Digest
    schema: Schema
    signer: Address
    network: Domain = NETWORK

    def __init__(
        self,
        folder: Path,
        name: str,
        rows: dict[str, Any],
        epsilon_micro: int,
        standings: Standings | None = None,
    ) -> None:
        self._standings = standings
        self.name, self.rows, self.schema = name, rows, schema()
        folder.mkdir(parents=True)
        self.folder = folder.parent
        self._openfhe = self.python = standin(self.folder)
        with (folder / "rows.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(rows)
            out.writerows(zip(*(value.tolist() for value in rows.values()), strict=True))
        made = found_vault(
            folder / "vault", name, folder / "vault.key", self.schema, find(folder / "rows.csv"), POLICY
        )
        self._root = self.folder_of_vault = made.root
        self._seed = hashlib.sha256(name.encode()).digest()
        self.open()
        self.dataset, self.snapshot = self.vault.dataset, self.vault.snapshot
        self.signer = self.vault.key.address
        self.subject = subject(self.dataset, KIND.name)
        self.grant = self.granted(epsilon_micro)
        self.dead_at = ""
        self.orders: list[ShareOrder] = []
        self.calls: list[bytes] = []

    def open(self) -> None:
        owner, hot = Address(self._seed[:20]), Key(self._seed)
        self.vault: Vault = open_vault(self._root, owner, hot, NETWORK, standings=self._standings)
        self.service = Shares(self.vault, interpreter=lambda: self._openfhe)

    def restart(self) -> None:
        """As after kill -9: what was in memory is gone."""
        self.vault.close()
        self.open()

    def granted(self, epsilon_micro: int, who: Identity = ME) -> Digest:
        signed = who.request(
            self.vault.dataset,
            NETWORK,
            Operation.JOINT,
            "tests",
            epsilon_micro,
            1000,
            10**9,
            int(time.time()) + 86_400,
            b"",
        )
        grant = self.vault.approve(self.vault.ask(AskedFor(signed, "tests", b"")).request).grant
        assert grant is not None
        return grant

    def spent_micro(self) -> int:
        return POLICY.requester_epsilon_micro - self.vault.left_micro(ME.address)

    async def call(self, data: bytes, who: Identity = ME) -> bytes:
        self.calls.append(data)
        if self.dead_at and self.dead_at.encode() in data[:4096]:
            raise ConnectionError("the vault is gone")
        question = who.sealed(self.vault.dataset, self.vault.seal_to, NETWORK, data, time.time())
        reply = await self.service.answer(Address(bytes(20)), question.body)
        return who.opened(self.vault.seal_to, reply, question.nonce)

    async def order(self, order: ShareOrder, most_wei: int | None) -> Paid:
        self.orders.append(order)
        if self.dead_at == "order":
            raise ConnectionError("the vault is gone")
        tokens: list[int] = []
        async for event in self.service.submit(order):
            match event:
                case TokenEvent(token):
                    tokens.append(token)
                case Finish():
                    pass
        units = KIND.recount(order, tuple(tokens))
        charged_wei = units[0] * MILLI_WEI + units[1] * USE_WEI
        assert charged_wei <= KIND.cap_wei(order, MILLI_WEI, USE_WEI)
        assert KIND.wrong is not None
        assert KIND.wrong(order, tuple(tokens), "stop") is None
        return Paid(bytes_of(tuple(tokens)), charged_wei, None, self.name)


OPEN: list[Clinic] = []


def clinics(
    folder: Path,
    count: int = 3,
    rows: int = 400,
    epsilon_micro: int = 0,
    standings: Standings | None = None,
) -> list[Clinic]:
    """Open until their test ends."""
    made = [
        Clinic(
            folder / f"clinic-{at}", f"clinic-{at}", patients(at, rows), epsilon_micro, standings=standings
        )
        for at in range(count)
    ]
    OPEN.extend(made)
    return made


def pooled(of: list[Clinic], column: str) -> Any:
    return np.concatenate([clinic.rows[column] for clinic in of]).astype(float)


async def asked(of: list[Clinic], sql: str, epsilon_micro: int = 0, by: Way = "masks") -> Statistic:
    """Ask all of them; what they hold of keys ends with the loop that holds it."""
    try:
        return await asking(of, sql, epsilon_micro, by).statistic()
    finally:
        for clinic in of:
            await clinic.service.close()


def asking(of: list[Clinic], sql: str, epsilon_micro: int = 0, by: Way = "masks") -> Asking:
    wanted = question_of(sql, {it.name: it.schema for it in of})
    return Asking(
        ME.key,
        of,
        wanted,
        epsilon_micro=epsilon_micro,
        delta_pico=DELTA_PICO,
        by=by,
        phase_s=30.0,
        interpreter=lambda: standin(of[0].folder),
    )


def study_of(
    of: list[Clinic], question: Question, epsilon_micro: int = 0, nonce: int = 1, **more: Any
) -> Study:
    """As a requester names it who knows these vaults' keys."""
    study = Study(
        ME.address,
        question,
        "masks",
        epsilon_micro,
        DELTA_PICO if epsilon_micro else 0,
        tuple(bytes(it.subject) for it in of),
        tuple(bytes(it.service.member) for it in of),
        int(time.time()) + 600,
        nonce.to_bytes(32),
    )
    return msgspec.structs.replace(study, **more)


def order_of(clinic: Clinic, study: Study, who: Identity = ME, **more: Any) -> ShareOrder:
    order = ShareOrder(clinic.subject, clinic.dataset, clinic.snapshot, clinic.grant, study, bytes(65))
    return msgspec.structs.replace(order, **more).signed(who.key, NETWORK)


def meet(clinic: Clinic, of: list[Clinic], study: Study) -> Meet:
    return Meet(clinic.grant, study.subjects, study.members, papers_of(of))


def papers_of(of: list[Clinic]) -> tuple[bytes, ...]:
    return tuple(it.vault.cohorts.membership(it.service.member) for it in of)


async def pledged(of: list[Clinic], study: Study) -> list[Said]:
    """Everyone met, and ordered."""
    for clinic in of:
        await ask(clinic, meet(clinic, of, study), Met)
    return [decode_said((await it.order(order_of(it, study), None)).answer) for it in of]
