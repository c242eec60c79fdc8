"""A vault with real files and keys, in a temporary folder; a requester; and a clock that the test moves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clusterai.ledger.core.calls import Submit
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.access import AskAccess, Told, decode_told
from clusterai.protocol.canonical import encode
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Operation, SignedRequest
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters.access import Desk
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.hosting import Vault, open_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import MICRO, Policy, write_policy
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.terms import AskedFor, Entry

OWNER = Address(b"O" * 20)
HOT = Key(b"h" * 32)
NETWORK = network_domain(31415, Address(b"R" * 20))
START_S = 1_800_000_000
DAY_S = 86_400
SCHEMA = Schema(
    columns=(
        Column(name="patient", kind="int", low=0, high=10_000),
        Column(name="age", kind="int", low=0, high=120),
        Column(name="dose", kind="float", low=0, high=50, nullable=True),
        Column(name="ward", kind="category", categories=("east", "west"), access="public"),
        Column(name="note", kind="text"),
        Column(name="seen", kind="date", low="2020-01-01", high="2026-12-31", nullable=True),
        Column(name="smokes", kind="bool"),
    ),
    unit="patient",
    unit_rows=2,
)
SECRET = "the patient in bed nine is the mayor"
POLICY = Policy(
    operations=tuple(sorted(Operation)),
    grant_epsilon_micro=2 * MICRO,
    requester_epsilon_micro=3 * MICRO,
    total_epsilon_micro=5 * MICRO,
    milli_epsilon_wei=1_000,
    use_wei=50,
    copy_wei=10**9,
)


def rows(count: int = 30) -> list[dict[str, Any]]:
    return [
        {
            "patient": at // 2,
            "age": 20 + at % 60,
            "dose": "" if at % 7 == 0 else at / 4,
            "ward": ("east", "west")[at % 2],
            "note": SECRET if at == 9 else f"note {at}",
            "seen": "" if at % 5 == 0 else f"2024-01-{1 + at % 28:02}",
            "smokes": ("true", "false")[at % 2],
        }
        for at in range(count)
    ]


def csv_file(path: Path, given: list[dict[str, Any]] | None = None) -> Path:
    import csv

    listed = rows() if given is None else given
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(listed[0]))
        out.writeheader()
        out.writerows(listed)
    return path


class Bed:
    """One vault and its world.

    Attributes:
        now_s: the clock of everybody.
        folder: the vault's; its key lies elsewhere.
    """

    def __init__(
        self,
        root: Path,
        policy: Policy = POLICY,
        schema: Schema = SCHEMA,
        owner: Address = OWNER,
        hot: Key = HOT,
        network: Domain = NETWORK,
        submit: Callable[[Submit], None] | None = None,
        start_s: int = START_S,
    ) -> None:
        self.now_s = float(start_s)
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.owner, self.hot, self.network, self.submit = owner, hot, network, submit
        self.key_file = root / "keys" / "vault.key"
        data = find(csv_file(root / "data.csv"))
        self.folder: VaultFolder = found_vault(root / "vault", "wards", self.key_file, schema, data, policy)
        (root / "data.csv").unlink()
        self.identity = Identity.make()
        self.vault: Vault = self.open()

    def open(self, region: str = "") -> Vault:
        self.vault = open_vault(
            self.folder.root,
            self.owner,
            self.hot,
            self.network,
            self.clock,
            self.submit,
            window_s=LOCAL.window_s,
            region=region,
        )
        self.desk = Desk(self.vault)
        return self.vault

    def close(self) -> None:
        self.vault.close()

    def clock(self) -> float:
        return self.now_s

    def restart(self) -> Vault:
        self.vault.close()
        return self.open()

    def set_policy(self, policy: Policy) -> None:
        self.folder.policy_file.write_bytes(write_policy(policy))

    # --- a requester ---

    def request(
        self, who: Identity | None = None, operation: int = Operation.QUERY, **changes: Any
    ) -> tuple[SignedRequest, str, bytes]:
        asked: Mapping[str, Any] = {
            "purpose": "to count beds",
            "epsilon_micro": MICRO,
            "uses": 100,
            "price_wei": 10**12,
            "expires_s": int(self.now_s) + 30 * DAY_S,
            "code": b"print(1)\n"
            if operation in (Operation.CODE, Operation.REVIEW, Operation.TRAINING)
            else b"",
            **changes,
        }
        signed = (who or self.identity).request(self.vault.dataset, self.network, operation, **asked)
        return signed, asked["purpose"], asked["code"]

    def ask(self, who: Identity | None = None, operation: int = Operation.QUERY, **changes: Any) -> Entry:
        return self.vault.ask(AskedFor(*self.request(who, operation, **changes)))

    def grant(self, who: Identity | None = None, operation: int = Operation.QUERY, **changes: Any) -> Digest:
        """Asked for, approved, and in force."""
        entry = self.vault.approve(self.ask(who, operation, **changes).request)
        assert entry.grant is not None
        return entry.grant

    async def call(self, message: Any, who: Identity | None = None) -> Told:
        """As over the wire: sealed, signed, answered, opened."""
        caller = who or self.identity
        question = caller.sealed(
            self.vault.dataset, self.vault.seal_to, self.network, encode(message), self.now_s
        )
        reply = await self.desk.answer(ZERO_ADDRESS, question.body)
        return decode_told(caller.opened(self.vault.seal_to, reply, question.nonce))

    def asking(self, **changes: Any) -> AskAccess:
        return AskAccess(*self.request(**changes))
