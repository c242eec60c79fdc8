"""JSON-RPC 2.0 over bytes: whatever comes in, a JSON-RPC answer goes out, with go-ethereum's codes and words.

-32700 not JSON             -32600 not a request      -32601 no such method     -32602 wrong parameters
-32005 a limit was met      -32000 refused            3 reverted, with what was returned under `data`
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec

from clusterai.ledger.adapters.embedded import params as p
from clusterai.ledger.adapters.embedded.chain import Chain, Rejection, TooManyLogs
from clusterai.ledger.adapters.embedded.evm import Outcome, Refused
from clusterai.ledger.adapters.embedded.filters import NoFilter, TooManyFilters
from clusterai.ledger.adapters.embedded.methods import Method, Methods, Reverted, Unavailable
from clusterai.ledger.adapters.embedded.params import InvalidParams
from clusterai.ledger.adapters.embedded.transactions import BadTransaction, Transaction, decode_transaction
from clusterai.protocol.ids import hex0x

MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_BATCH = 1000

PARSE, INVALID, NO_METHOD, PARAMS, LIMIT, REFUSED, REVERTED = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32005,
    -32000,
    3,
)

_NEEDS_A_KEY = frozenset(
    [
        "eth_sendTransaction",
        "eth_sign",
        "eth_signTransaction",
        "eth_signTypedData",
        "eth_signTypedData_v4",
        "personal_sign",
    ]
)
_PANICS = {
    0x01: "assert(false)",
    0x11: "arithmetic underflow or overflow",
    0x12: "division or modulo by zero",
}

Submit = Callable[[Transaction], Awaitable[Rejection | None]]


class _Send(msgspec.Struct, frozen=True):
    """A transaction under way: its answer comes once it is durable."""

    id: object
    transaction: Transaction
    mined: Awaitable[Rejection | None]


class Rpc:
    def __init__(self, chain: Chain, submit: Submit, clock: Callable[[], float]) -> None:
        self._chain_id = chain.chain_id
        self._submit = submit
        self._methods: dict[str, Method] = Methods(chain, clock).table()

    async def answer(self, body: bytes) -> bytes:
        """The response body; empty where there were only notifications."""
        try:
            request: object = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
            return _encode(_error(None, PARSE, "parse error: the body is not JSON"))
        if not isinstance(request, list):
            answer = await _finish(self._begin(request))
            return b"" if answer is None else _encode(answer)
        batch = cast("list[object]", request)
        if not batch:
            return _encode(_error(None, INVALID, "empty batch"))
        if len(batch) > MAX_BATCH:
            return _encode(
                _error(None, LIMIT, f"batch too large: {len(batch)} requests, the limit is {MAX_BATCH}")
            )
        answers = [answer for answer in await self._batch(batch) if answer is not None]
        return _encode(answers) if answers else b""

    async def _batch(self, batch: list[object]) -> list[dict[str, Any] | None]:
        """In order; transactions that stand together are mined together."""
        answers: list[dict[str, Any] | None] = []
        sends: list[_Send | dict[str, Any] | None] = []
        for request in batch:
            if sends and not _is_send(request):
                answers += [await _finish(send) for send in sends]
                sends = []
            begun = self._begin(request)
            if sends or isinstance(begun, _Send):
                sends.append(begun)
            else:
                answers.append(begun)
        return answers + [await _finish(send) for send in sends]

    def _begin(self, request: object) -> "_Send | dict[str, Any] | None":
        if not isinstance(request, dict):
            return _error(None, INVALID, "invalid request: give an object")
        fields = cast("dict[str, object]", request)
        call_id, method = fields.get("id"), fields.get("method")
        if isinstance(call_id, (dict, list, bool)):
            return _error(None, INVALID, "invalid request: id must be a string or a number")
        if fields.get("jsonrpc") != "2.0" or not isinstance(method, str):
            return _error(call_id, INVALID, 'invalid request: give "jsonrpc":"2.0" and a method')
        params = fields.get("params", [])
        if not isinstance(params, list):
            answer = _error(call_id, PARAMS, "params must be an array")
        elif method == "eth_sendRawTransaction":
            return self._send(call_id, cast("list[object]", params))
        else:
            answer = self._read(call_id, method, cast("list[object]", params))
        return answer if "id" in fields else None

    def _read(self, call_id: object, name: str, params: Sequence[object]) -> dict[str, Any]:
        method = self._methods.get(name)
        if method is None:
            return _error(call_id, NO_METHOD, _missing(name))
        try:
            return {"jsonrpc": "2.0", "id": call_id, "result": method(params)}
        except InvalidParams as error:
            return _error(call_id, PARAMS, f"invalid argument: {error}")
        except Reverted as error:
            return _reverted(call_id, error.outcome)
        except (TooManyLogs, TooManyFilters) as error:
            return _error(call_id, LIMIT, str(error))
        except (Refused, Unavailable, NoFilter) as error:
            return _error(call_id, REFUSED, str(error))

    def _send(self, call_id: object, params: Sequence[object]) -> "_Send | dict[str, Any]":
        try:
            transaction = decode_transaction(p.data(p.nth(params, 0), "transaction"), self._chain_id)
        except InvalidParams as error:
            return _error(call_id, PARAMS, f"invalid argument: {error}")
        except BadTransaction as error:
            return _error(call_id, REFUSED, str(error))
        return _Send(call_id, transaction, self._submit(transaction))


async def _finish(begun: "_Send | dict[str, Any] | None") -> dict[str, Any] | None:
    if not isinstance(begun, _Send):
        return begun
    rejection = await begun.mined
    if rejection is not None:
        return _error(begun.id, REFUSED, str(rejection))
    return {"jsonrpc": "2.0", "id": begun.id, "result": hex0x(begun.transaction.hash)}


def _is_send(request: object) -> bool:
    return (
        isinstance(request, dict)
        and cast("dict[str, object]", request).get("method") == "eth_sendRawTransaction"
    )


def _missing(name: str) -> str:
    if name in _NEEDS_A_KEY:
        return f"the method {name} is not available: no keys are kept here; sign, then eth_sendRawTransaction"
    return f"the method {name[:80]} does not exist/is not available"


def _reverted(call_id: object, outcome: Outcome) -> dict[str, Any]:
    if outcome.halt:
        words = "out of gas" if "OutOfGas" in outcome.halt else f"invalid opcode: {outcome.halt}"
        return _error(call_id, REFUSED, words)
    reason = _reason(outcome.output)
    answer = _error(call_id, REVERTED, "execution reverted" + (f": {reason}" if reason else ""))
    answer["error"]["data"] = hex0x(outcome.output)
    return answer


def _reason(output: bytes) -> str:
    """The words of Error(string) and Panic(uint256); a contract may return anything under their selectors.

    By hand: importing eth_abi would take a quarter of the process's start.
    """
    body = output[4:]
    if output[:4] == b"\x08\xc3\x79\xa0" and body[:32] == (32).to_bytes(32):
        text = body[64 : 64 + int.from_bytes(body[32:64])]
        return text.decode(errors="replace")
    if output[:4] == b"\x4e\x48\x7b\x71" and len(body) == 32:
        code = int.from_bytes(body)
        return _PANICS.get(code, f"panic code {code:#x}")
    return ""


def _error(call_id: object, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)
