"""What tests of federated training share: vaults in this process, with budgets and a log, and ways to them without a network."""

import atexit
import hashlib
import hmac
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import numpy as np
from sklearn.datasets import load_digits

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import SignedUse, Use, dataset_id, subject
from clusterai.work.engine import Finish, TokenEvent
from clusterai.work.packed import bytes_of
from clusterai.work.training.adapters.hosting import Training
from clusterai.work.training.adapters.rounds import Paid
from clusterai.work.training.adapters.studio import Studio
from clusterai.work.training.spec import Round
from scripts import install

APP = Path(__file__).resolve().parents[3] / "examples" / "flower-app"
PRICE_WEI = 7


def flower() -> Path:
    """A test without Flower fails: it proves nothing."""
    home = install.HOME / "peers" / "flower"
    assert install.peer(install.PEERS / "flower.txt", home) is not None, (
        "flower isn't installed as scripts/peers/flower.txt wants it: make install-peers"
    )
    return home


def studio() -> Studio:
    made = Path(mkdtemp(prefix="clusterai-studio-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Studio(made, flower(), at_once=1)


class Denied(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Asked(msgspec.Struct, frozen=True):
    plain: bytes
    signer: Address


class Permit(msgspec.Struct, frozen=True):
    epsilon_micro: int


class OpenVault:
    """A vault with one grant for everybody; calls are sealed by nothing."""

    def __init__(self, name: str, folder: Path, *, epsilon_micro: int = 0, unit: str = "") -> None:
        self.name = name
        self.key = Key(hashlib.sha256(name.encode()).digest())
        self.dataset = dataset_id(self.key.address, name)
        self.snapshot = Digest(hashlib.sha256(b"snapshot" + name.encode()).digest())
        self.grant = Digest(hashlib.sha256(b"grant" + name.encode()).digest())
        self.unit = unit
        self.budget_micro = epsilon_micro
        self.left_micro = epsilon_micro
        self.spent: dict[Digest, int] = {}
        self.uses: list[SignedUse] = []
        self._folder = folder

    @property
    def rows(self) -> int:
        with np.load(self._folder / "digits.npz") as found:
            return len(found["digit"])

    def opened(self, sender: Address, body: bytes) -> Asked:
        return Asked(body, sender)

    def sealed(self, to: object, data: bytes) -> bytes:
        return data

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Permit:
        if grant != self.grant:
            raise Denied("unknown", "no such grant")
        return Permit(self.budget_micro)

    async def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int) -> object:
        if order not in self.spent:
            if epsilon_micro > self.left_micro:
                raise Denied(
                    "budget", f"{self.left_micro} millionths of ε are left, {epsilon_micro} are asked"
                )
            self.left_micro -= epsilon_micro
            self.spent[order] = epsilon_micro
        return None

    async def used(self, order: Digest, result: Digest) -> SignedUse:
        micro = self.spent[order]
        use = Use(
            self.dataset,
            len(self.uses),
            self.grant,
            bytes(20),
            order,
            micro,
            micro,
            self.budget_micro - self.left_micro,
            result,
            0,
        )
        self.uses.append(SignedUse(use, self.key.sign(Digest(use.struct()))))
        return self.uses[-1]

    @asynccontextmanager
    async def mount(self) -> AsyncGenerator[Path]:
        yield self._folder

    def noise_seed(self, order: Digest, beacon: bytes) -> bytes:
        return hmac.digest(self.key.secret(), order + beacon, "sha256")


class Near:
    """The way to a vault in this process. It can be cut at any phase."""

    def __init__(self, vault: OpenVault, who: Address, service: Training | None = None) -> None:
        self.name = vault.name
        self.vault = vault
        self.subject = subject(vault.dataset, "training")
        self.grant = vault.grant
        self.service = service or Training(vault, studio)
        self.who = who
        self.dead_at = ""
        """The phase in which it is gone: order, or a frame of secure aggregation."""
        self.orders = 0

    async def call(self, data: bytes) -> bytes:
        if self.dead_at and self.dead_at.encode() in data[:4096]:
            raise ConnectionError("the vault is gone")
        return await self.service.answer(self.who, data)

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        self.orders += 1
        if self.dead_at == "order":
            raise ConnectionError("the vault is gone")
        tokens: list[int] = []
        async for event in self.service.submit(request):
            match event:
                case TokenEvent(token):
                    tokens.append(token)
                case Finish():
                    pass
        return Paid(bytes_of(tokens), PRICE_WEI * request.blocks, {"id": request.number}, self.name)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    loaded: Any = load_digits
    found = loaded()
    return np.asarray(found.data), np.asarray(found.target)


def vaults(folder: Path, count: int = 3, *, epsilon_micro: int = 0, most_rows: int = 2000) -> list[OpenVault]:
    """Each with a share of the digits; the last hundred are nobody's."""
    pixels, digit = digits()
    made: list[OpenVault] = []
    for at in range(count):
        place = folder / f"vault-{at}"
        place.mkdir(parents=True)
        rows = slice(at, min(most_rows, len(digit) - 100), count)
        np.savez(place / "digits.npz", pixels=pixels[rows], digit=digit[rows])
        made.append(OpenVault(f"vault-{at}", place, epsilon_micro=epsilon_micro))
    return made


def accuracy(model: Path) -> float:
    """On the hundred that nobody has."""
    pixels, digit = digits()
    with np.load(model) as found:
        scores = pixels[-100:] / 16.0 @ found["weights"] + found["bias"]
    return float((scores.argmax(axis=1) == digit[-100:]).mean())
