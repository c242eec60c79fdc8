# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Wallets without an account or a key: the unmodified x402 client pays for completions."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
from x402.mechanisms.evm.exact import ExactEvmScheme

from clusterai.gateway.core.moneystate import wallet_account
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.network import make_key
from clusterai.ledger.adapters.outbox import transact
from clusterai.ledger.core import calls
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.withdrawal import Withdrawal
from tests.rooms.gateway.bed import TOKEN, Bed

HOME = Address(b"\x79" * 20)
PATH = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 5,
    "seed": 1,
}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("wallets")
    with Bed(folder, providers=1, terms={"least_payout_wei": 1}) as it:
        it.until(lambda: it.fetch("POST", PATH, json.dumps(BODY).encode())[0] == 402, "payments by wallet")
        yield it


class Wallet:
    """A fresh wallet with 10 CLAI and an unmodified x402 client that pays by one scheme."""

    def __init__(self, bed: Bed, folder: Path, scheme: str) -> None:
        self.bed = bed
        self.key: Key = make_key(folder / "wallet.key")
        bed.run(self._fill())
        network = f"eip155:{bed.network.chain_id}"
        account: Any = Account.from_key(self.key.secret())
        self.client = x402Client()
        way: Any = ExactEvmScheme(account) if scheme == "exact" else BatchSettlementEvmScheme(account)
        self.client.register(network, way)
        token = checksummed(bed.network.contracts.token)
        self.client.set_spend_controls({"allowed_assets": [{"network": network, "asset": token}]})

    async def _fill(self) -> None:
        async with ChainClient(self.bed.network) as client:
            await transact(client, self.bed.treasury, calls.Transfer(self.key.address, 10 * TOKEN))

    def ask(self, times: int = 1, **fields: Any) -> list[httpx.Response]:
        async def work() -> list[httpx.Response]:
            async with x402HttpxClient(self.client, base_url=self.bed.url, timeout=120) as http:
                return [await http.post(PATH, json={**BODY, **fields}) for _ in range(times)]

        return asyncio.run(work())

    def balance_wei(self) -> int:
        return balance_wei(self.bed, self.key.address)


def balance_wei(bed: Bed, owner: Address) -> int:
    """What the chain says that an address has."""
    token = hex0x(bed.network.contracts.token)
    data = "0x70a08231" + bytes(12).hex() + owner.hex()
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "eth_call",
        "params": [{"to": token, "data": data}, "latest"],
    }
    return int(httpx.post(bed.network.rpc_urls[0], json=request).json()["result"], 16)


def charged(answer: httpx.Response) -> int:
    return answer.json()["clusterai"]["price_wei"]


def test_without_a_key_the_terms_are_told(bed: Bed) -> None:
    """Who neither has a key nor pays hears the price of this very request and both ways to pay it."""
    status, headers, raw = bed.fetch("POST", PATH, json.dumps(BODY).encode())
    assert status == 402
    assert json.loads(raw)["error"]["code"] == "payment_required"
    terms = json.loads(base64.b64decode({k.lower(): v for k, v in headers.items()}["payment-required"]))
    assert {one["scheme"] for one in terms["accepts"]} == {"exact", "batch-settlement"}
    assert all(int(one["amount"]) > 0 for one in terms["accepts"])


def test_a_bad_request_is_told_before_money_is_spoken_of(bed: Bed) -> None:
    """A request that could never be done gets its own error, not a price."""
    assert bed.fetch("POST", PATH, json.dumps({**BODY, "temperature": 9}).encode())[0] == 400
    assert bed.fetch("POST", PATH, json.dumps({**BODY, "model": "none"}).encode())[0] == 404


def test_exact_pays_for_a_completion(bed: Bed, tmp_path: Path) -> None:
    """One signature, one transfer, one answer; what it cost less than the quote is the wallet's credit."""
    wallet = Wallet(bed, tmp_path, "exact")
    [answer] = wallet.ask()
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert "payment-response" in answer.headers
    paid_wei = 10 * TOKEN - wallet.balance_wei()
    assert paid_wei >= charged(answer) > 0


def test_credit_is_used_before_a_new_payment(bed: Bed, tmp_path: Path) -> None:
    """A wallet that paid for a long answer and got a short one isn't charged again for a short one."""
    wallet = Wallet(bed, tmp_path, "exact")
    [long] = wallet.ask(max_tokens=2000, stop=["a", "e", "i", "o", "t", " "])
    assert long.status_code == 200, long.text
    before_wei = wallet.balance_wei()
    [short] = wallet.ask()
    assert short.status_code == 200
    assert wallet.balance_wei() == before_wei
    assert "payment-response" not in short.headers


def test_batch_settlement_pays_for_many_with_one_deposit(bed: Bed, tmp_path: Path) -> None:
    """Many completions, one transaction: the rest are vouchers."""
    wallet = Wallet(bed, tmp_path, "batch-settlement")
    answers = wallet.ask(times=5)
    assert [answer.status_code for answer in answers] == [200] * 5, answers[0].text
    deposited_wei = 10 * TOKEN - wallet.balance_wei()
    assert deposited_wei > sum(map(charged, answers)) > 0


def test_a_streamed_completion_is_paid_before_its_first_token(bed: Bed, tmp_path: Path) -> None:
    """Streams carry the payment's response in their headers."""
    wallet = Wallet(bed, tmp_path, "batch-settlement")
    [answer] = wallet.ask(stream=True)
    assert answer.status_code == 200
    assert "payment-response" in answer.headers
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_vouchers_survive_a_gateway_killed_at_once(bed: Bed, tmp_path: Path) -> None:
    """After `kill -9` the channel goes on where it was, and nothing is paid twice."""
    wallet = Wallet(bed, tmp_path, "batch-settlement")
    assert wallet.ask()[0].status_code == 200
    bed.kill("gateway")
    bed.start_gateway()
    bed.until(lambda: bed.usable() == 1, "the provider to come back")
    bed.until(lambda: bed.fetch("POST", PATH, json.dumps(BODY).encode())[0] == 402, "payments by wallet")
    before_wei = wallet.balance_wei()
    assert wallet.ask()[0].status_code == 200
    assert wallet.balance_wei() == before_wei


def test_nonsense_payments_are_refused(bed: Bed) -> None:
    """What isn't a payment is a 400 that says so, whatever the bytes are."""
    for nonsense in ("x", "e30=", "Mw==", base64.b64encode(b'{"x402Version":2}').decode(), "A" * 20_000):
        status, _, raw = bed.fetch("POST", PATH, json.dumps(BODY).encode(), PAYMENT_SIGNATURE=nonsense)
        assert status == 400, raw
        assert json.loads(raw)["error"]["code"] == "malformed_payment"


def test_somebody_elses_signature_pays_nothing(bed: Bed, tmp_path: Path) -> None:
    """A payment whose signature isn't its payer's is refused with the terms, and the payer keeps its money."""
    wallet = Wallet(bed, tmp_path, "exact")
    _, headers, _ = bed.fetch("POST", PATH, json.dumps(BODY).encode())
    required = {k.lower(): v for k, v in headers.items()}["payment-required"]

    async def sign() -> Any:
        from x402.http.utils import decode_payment_required_header

        return await wallet.client.create_payment_payload(decode_payment_required_header(required))

    payload = asyncio.run(sign())
    forged = payload.model_dump(by_alias=True, mode="json", exclude_none=True)
    forged["payload"]["authorization"]["from"] = checksummed(bed.treasury.address)
    header = base64.b64encode(json.dumps(forged).encode()).decode()
    status, _, raw = bed.fetch("POST", PATH, json.dumps(BODY).encode(), PAYMENT_SIGNATURE=header)
    assert status == 402, raw
    assert json.loads(raw)["error"]["code"] == "payment_refused"
    assert wallet.balance_wei() == 10 * TOKEN


def test_a_payment_cannot_be_used_twice(bed: Bed, tmp_path: Path) -> None:
    """The same signature again is refused once its credit is spent."""
    wallet = Wallet(bed, tmp_path, "exact")
    _, headers, _ = bed.fetch("POST", PATH, json.dumps(BODY).encode())
    required = {k.lower(): v for k, v in headers.items()}["payment-required"]

    async def sign() -> Any:
        from x402.http.utils import decode_payment_required_header, encode_payment_signature_header

        return encode_payment_signature_header(
            await wallet.client.create_payment_payload(decode_payment_required_header(required))
        )

    header = asyncio.run(sign())
    statuses = [
        bed.fetch("POST", PATH, json.dumps(BODY).encode(), PAYMENT_SIGNATURE=header)[0] for _ in range(3)
    ]
    assert statuses[0] == 200
    assert statuses[-1] == 402


def wish(bed: Bed, key: Key, account: Digest | None = None, most_wei: int = 2**60) -> dict[str, Any]:
    """A signed request to be paid back at an address that nobody else uses."""
    asked = Withdrawal(
        bed.gateway.owner.address,
        account or wallet_account(key.address),
        HOME,
        most_wei,
        int(time.time()) + 600,
        secrets.token_bytes(32),
    )
    name = asked.name(network_domain(bed.network.chain_id, bed.network.contracts.registry))
    return {
        "account": hex0x(asked.account),
        "to": hex0x(asked.to),
        "most_wei": most_wei,
        "expires_s": asked.expires_s,
        "nonce": hex0x(asked.nonce),
        "signature": hex0x(key.sign(name)),
    }


def withdraw(bed: Bed, body: dict[str, Any], key: str | None = None) -> tuple[int, Any]:
    status, _, raw = bed.fetch("POST", "/v1/clusterai/withdrawals", json.dumps(body).encode(), key)
    return status, json.loads(raw)


def until_paid(bed: Bed, name: str) -> Any:
    path = f"/v1/clusterai/withdrawals/{name}"
    bed.until(lambda: bed.get(path)["state"] == "paid", "the payout")
    return bed.get(path)


def test_what_a_wallet_paid_too_much_goes_back_to_it(bed: Bed, tmp_path: Path) -> None:
    """By its signature alone, once, and to the last unit; nobody else's signature moves it."""
    wallet = Wallet(bed, tmp_path, "exact")
    paid_wei = 10 * TOKEN
    [answer] = wallet.ask(max_tokens=2000, stop=["a", "e", "i", "o", "t", " "])
    cost_wei = answer.json()["clusterai"]["price_wei"]
    paid_wei -= wallet.balance_wei()
    before_wei = balance_wei(bed, HOME)
    body = wish(bed, wallet.key)
    assert withdraw(bed, {**body, "most_wei": 1})[0] in (401, 409)
    status, made = withdraw(bed, body)
    assert status == 202
    assert made["amount_wei"] == paid_wei - cost_wei > 0
    assert withdraw(bed, body)[1]["id"] == made["id"]
    assert until_paid(bed, made["id"])["transaction"] is not None
    assert balance_wei(bed, HOME) - before_wei == made["amount_wei"]
    assert withdraw(bed, wish(bed, wallet.key))[0] == 409


def test_a_payout_survives_a_gateway_killed_at_once(bed: Bed, tmp_path: Path) -> None:
    """What was answered 202 is owed: after the restart it is paid, once."""
    wallet = Wallet(bed, tmp_path, "exact")
    bed.fund(wallet_account(wallet.key.address), TOKEN)
    before_wei = balance_wei(bed, HOME)
    body = wish(bed, wallet.key)
    bed.until(lambda: withdraw(bed, body)[0] == 202, "the deposit")
    name = withdraw(bed, body)[1]["id"]
    bed.kill("gateway")
    bed.start_gateway()
    assert until_paid(bed, name)["amount_wei"] == TOKEN
    assert withdraw(bed, body)[1]["state"] == "paid"
    assert balance_wei(bed, HOME) - before_wei == TOKEN


def test_who_funded_an_account_gets_its_money_back_with_a_key_of_it(bed: Bed) -> None:
    """Without a key it is 401, with another account's 403; no more than was put there."""
    secret, key = bed.ring.create("refunded")
    bed.fund(key.account, TOKEN)
    bed.until(lambda: bed.get("/v1/clusterai/account", secret)["credit_wei"] == TOKEN, "the deposit")
    before_wei = balance_wei(bed, HOME)
    body = wish(bed, bed.treasury, key.account)
    assert withdraw(bed, body)[0] == 401
    assert withdraw(bed, body, bed.key)[0] == 403
    status, made = withdraw(bed, body, secret)
    assert (status, made["amount_wei"]) == (202, TOKEN)
    until_paid(bed, made["id"])
    assert balance_wei(bed, HOME) - before_wei == TOKEN
    account = bed.get("/v1/clusterai/account", secret)
    assert (account["credit_wei"], account["withdrawn_wei"]) == (0, TOKEN)


@pytest.mark.parametrize(
    "body",
    [{}, {"signature": "0x"}, {"to": "0x12"}, {"most_wei": -1}, {"more": 1}, {"nonce": "0x" + "00" * 31}],
)
def test_nonsense_withdrawals_are_400(bed: Bed, body: dict[str, Any]) -> None:
    """The problem says what is wrong; nothing is owed."""
    whole = wish(bed, bed.treasury) if body else {}
    status, told = withdraw(bed, {**whole, **body})
    assert status in (400, 401)
    assert told["detail"]
