"""JSON-RPC to a chain, with the kinds of failure kept apart: away, refused, reverted.

One session, deadlines on everything, arrays for batches. Several addresses may be given: the next one is tried where
one is away.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

DEADLINE_S = 10.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_BATCH = 500


class ChainDown(ConnectionError):
    """The chain doesn't answer at {url}: {why}. It is asked again by itself; is the address right, the process up?"""


class RpcRefused(ValueError):
    """The chain refused the request: {message} ({code})."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class CallReverted(RpcRefused):
    """A call reverted; `data` is what the contract returned."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(3, message)
        self.data = data


class Request(NamedTuple):
    method: str
    params: Sequence[object]


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = None


class _Answer(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


_one: msgspec.json.Decoder[_Answer] = msgspec.json.Decoder(_Answer)
_either: msgspec.json.Decoder[list[_Answer] | _Answer] = msgspec.json.Decoder(list[_Answer] | _Answer)


class JsonRpc:
    """Ask a chain. Use inside `async with`, or give a session of your own."""

    def __init__(
        self, urls: Sequence[str], deadline_s: float = DEADLINE_S, session: ClientSession | None = None
    ) -> None:
        self._urls = list(urls)
        self._deadline_s = deadline_s
        self._session = session
        self._owned = session is None

    async def __aenter__(self) -> "JsonRpc":
        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(self._deadline_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._owned and self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, *params: object) -> Any:
        """One request.

        Raises:
            ChainDown, RpcRefused, CallReverted.
        """
        body = await self._post(msgspec.json.encode(_request(0, Request(method, params))))
        try:
            return _result(_one.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ChainDown(f"the chain's answer to {method} is not JSON-RPC: {error}") from None

    async def batch(self, requests: Sequence[Request], raw: int = 0) -> list[Any]:
        """Many requests; each result is a value, or the RpcRefused that `ask` would have raised.

        Args:
            raw: so many results from the first on stay JSON text, for a decoder that knows their shape.

        Raises:
            ChainDown.
        """
        results: list[Any] = []
        for start in range(0, len(requests), MAX_BATCH):
            part = requests[start : start + MAX_BATCH]
            body = msgspec.json.encode([_request(at, request) for at, request in enumerate(part)])
            results += _results(await self._post(body), len(part), raw - start)
        return results

    async def _post(self, body: bytes) -> bytes:
        assert self._session is not None, "use JsonRpc inside `async with`"
        failure = ""
        for url in list(self._urls):
            try:
                async with self._session.post(
                    url, data=body, headers={"Content-Type": "application/json"}
                ) as response:
                    if response.status in (200, 400):
                        return await _limited(response.content)
                    failure = f"HTTP {response.status}"
            except (TimeoutError, ClientError, OSError) as error:
                failure = str(error) or type(error).__name__
            # the next request begins with an address that may answer
            self._urls.append(self._urls.pop(0))
        raise ChainDown(f"the chain doesn't answer at {', '.join(self._urls)}: {failure}")


async def _limited(content: Any) -> bytes:
    data = bytearray()
    async for chunk in content.iter_any():
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            raise ClientError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(data)


def _request(number: int, request: Request) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}


def _results(body: bytes, count: int, raw: int) -> list[Any]:
    try:
        answers = _either.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ChainDown(f"the chain's answer to a batch is not JSON-RPC: {error}") from None
    if isinstance(answers, _Answer):
        return [_refusal(answers, is_raw=False)] * count
    by_id = {answer.id: answer for answer in answers}
    if missing := set(range(count)) - by_id.keys():
        raise ChainDown(f"the chain left {len(missing)} of {count} requests of a batch unanswered")
    return [_refusal(by_id[at], is_raw=at < raw) for at in range(count)]


def _refusal(answer: _Answer, *, is_raw: bool) -> Any:
    try:
        return _result(answer, is_raw=is_raw)
    except RpcRefused as error:
        return error


def _result(answer: _Answer, *, is_raw: bool = False) -> Any:
    error = answer.error
    if error is not None:
        if error.code == 3 or "revert" in error.message:
            raise CallReverted(error.message, _data(error.data))
        raise RpcRefused(error.code, error.message)
    return bytes(answer.result) if is_raw else msgspec.json.decode(answer.result)


def _data(value: Any) -> bytes:
    """Where clients put it: hex text, or an object that holds it."""
    if isinstance(value, dict):
        value = value.get("data") or value.get("result")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    try:
        return bytes.fromhex(value[2:]) if isinstance(value, str) else b""
    except ValueError:
        return b""
