"""What tests of federated training share: real vaults with real files, and ways to them without a network."""

import atexit
import hashlib
import shutil
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

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
from clusterai.vault.core.terms import AskedFor, Denied
from clusterai.work.engine import Busy, EngineFailed, Finish, TokenEvent, Unfit
from clusterai.work.packed import bytes_of
from clusterai.work.training import KIND
from clusterai.work.training.adapters.hosting import Training
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import Lost, Paid
from clusterai.work.training.adapters.studio import Studio
from clusterai.work.training.spec import Round
from scripts import install

APP = Path(__file__).resolve().parents[3] / "examples" / "flower-app"
NETWORK = network_domain(31415, Address(b"R" * 20))
ME = Identity(Key(b"\x07" * 32), b"\x08" * 32)
USE_WEI, MILLI_WEI = 7, 2
SCHEMA = Schema(
    columns=(
        Column(name="pixels", kind="array", shape=(64,), dtype="float64"),
        Column(name="digit", kind="int", low=0, high=9),
    )
)
POLICY = Policy(
    operations=(Operation.TRAINING,),
    grant_epsilon_micro=8 * MICRO,
    requester_epsilon_micro=8 * MICRO,
    total_epsilon_micro=20 * MICRO,
    total_delta_pico=10**9,
    milli_epsilon_wei=MILLI_WEI,
    use_wei=USE_WEI,
)


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


def owner_key(name: str) -> Key:
    return Key(hashlib.sha256(b"owner of " + name.encode()).digest())


def owner_of(name: str) -> Address:
    return owner_key(name).address


_open: list["Near"] = []


def close_vaults() -> None:
    """Those of the test that ends."""
    while _open:
        _open.pop().vault.close()


class Near:
    """A vault in this process, and the way to it. It can be cut at any phase."""

    def __init__(
        self,
        folder: Path,
        name: str,
        rows: slice,
        *,
        epsilon_micro: int = 0,
        app: Path = APP,
        standings: Standings | None = None,
    ) -> None:
        self.name = name
        pixels, digit = digits()
        folder.mkdir(parents=True)
        np.savez(folder / "rows.npz", pixels=pixels[rows], digit=digit[rows])
        data = find(folder / "rows.npz")
        made = found_vault(folder / "vault", name, folder / "vault.key", SCHEMA, data, POLICY)
        owner, hot = owner_of(name), Key(hashlib.sha256(name.encode()).digest())
        self.vault: Vault = open_vault(made.root, owner, hot, NETWORK, standings=standings)
        self.subject = subject(self.vault.dataset, KIND.name)
        self.grant = self.granted(epsilon_micro, app)
        self.signer, self.network = hot.address, NETWORK
        self.service = Training(self.vault, studio)
        self.dead_at = ""
        """The phase in which it is gone: order, or a frame of secure aggregation."""
        self.orders = 0
        _open.append(self)

    def granted(self, epsilon_micro: int, app: Path = APP) -> Digest:
        """Asked for and approved."""
        code = bundle_of(app).canonical()
        expires_s = int(time.time()) + 86_400
        signed = ME.request(
            self.vault.dataset,
            NETWORK,
            Operation.TRAINING,
            "tests",
            epsilon_micro,
            1000,
            10**9,
            expires_s,
            code,
        )
        asked = self.vault.ask(AskedFor(signed, "tests", code))
        grant = self.vault.approve(asked.request).grant
        assert grant is not None
        return grant

    def spent_micro(self) -> int:
        return POLICY.requester_epsilon_micro - self.vault.left_micro(ME.address)

    async def call(self, data: bytes) -> bytes:
        if self.dead_at and self.dead_at.encode() in data[:4096]:
            raise ConnectionError("the vault is gone")
        question = ME.sealed(self.vault.dataset, self.vault.seal_to, NETWORK, data, time.time())
        try:
            reply = await self.service.answer(Address(bytes(20)), question.body)
        except Denied as error:
            raise Lost(str(error)) from None
        return ME.opened(self.vault.seal_to, reply, question.nonce)

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        self.orders += 1
        if self.dead_at == "order":
            raise ConnectionError("the vault is gone")
        tokens: list[int] = []
        try:
            async for event in self.service.submit(request):
                match event:
                    case TokenEvent(token):
                        tokens.append(token)
                    case Finish():
                        pass
        except (Busy, Unfit, EngineFailed) as error:
            raise Lost(str(error)) from None  # as a gateway tells it
        units = KIND.recount(request, tuple(tokens))
        charged_wei = units[0] * MILLI_WEI + units[1] * USE_WEI
        assert charged_wei <= KIND.cap_wei(request, MILLI_WEI, USE_WEI)
        assert KIND.wrong is not None
        assert KIND.wrong(request, tuple(tokens), "stop") is None
        return Paid(bytes_of(tokens), charged_wei, {"id": request.number}, self.name)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    loaded: Any = load_digits
    found = loaded()
    return np.asarray(found.data), np.asarray(found.target)


def vaults(folder: Path, count: int = 3, *, epsilon_micro: int = 0, most_rows: int = 2000) -> list[Near]:
    """Each with a share of the digits; the last hundred are nobody's."""
    most = min(most_rows, len(digits()[1]) - 100)
    return [
        Near(folder / f"vault-{at}", f"vault-{at}", slice(at, most, count), epsilon_micro=epsilon_micro)
        for at in range(count)
    ]


def accuracy(model: Path) -> float:
    """On the hundred that nobody has."""
    pixels, digit = digits()
    with np.load(model) as found:
        scores = pixels[-100:] / 16.0 @ found["weights"] + found["bias"]
    return float((scores.argmax(axis=1) == digit[-100:]).mean())
