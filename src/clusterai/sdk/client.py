"""HTTP to one gateway, synchronous: programs that need an event loop have one of their own."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

from clusterai.protocol.ids import hex0x
from clusterai.protocol.withdrawal import Withdrawal
from clusterai.sdk import shapes

T = TypeVar("T")

TIMEOUT_S = 10.0
ATTEMPTS = 3
"""Reads are asked again when the connection breaks; a gateway that restarts is back within seconds."""


class Unreachable(ConnectionError):
    """No gateway answers at {url}: {why}. Is it running (`clusterai status`), and is the address right?"""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"no gateway answers at {url}: {why}")
        self.url = url
        self.why = why


class ApiError(Exception):
    """The gateway refused: its status, a code for programs, and a sentence that says what to change; `body` may say more."""

    def __init__(
        self, status: int, code: str, detail: str, body: bytes = b"", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.status = status
        self.code = code
        self.detail = detail
        self.body = body


class _Problem(msgspec.Struct):
    type: str = ""
    detail: str = ""


class Client:
    """One gateway.

    Args:
        base_url: with or without `/v1`. Default: CLUSTERAI_BASE_URL, OPENAI_BASE_URL, or port 8080 of this machine.
        api_key: for what belongs to an account. Default: OPENAI_API_KEY.
    """

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.base_url, headers = access(base_url, api_key)
        # The proxy settings of the environment are for the internet; httpx obeys NO_PROXY for this machine.
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- what anyone may see ---

    def status(self) -> shapes.Status:
        return self._get("status", shapes.Status)

    def network(self) -> shapes.Invitation:
        return self._get("network", shapes.Invitation)

    def nodes(self) -> list[shapes.Node]:
        return self._get("nodes", _Nodes).nodes

    def node(self, provider: str) -> shapes.RankedNode:
        """
        Raises:
            ApiError: 404, no provider of this address is registered.
        """
        return self._get(f"nodes/{quote(provider, safe='')}", shapes.RankedNode)

    def receipt(self, receipt_id: str) -> shapes.Receipt:
        """
        Raises:
            ApiError: 404, this gateway issued no such receipt.
        """
        return self._get(f"receipts/{quote(receipt_id, safe='')}", shapes.Receipt)

    def audits(self, limit: int = 100) -> shapes.Audits:
        return self._get("audits", shapes.Audits, limit=limit)

    def recent(self, after: int = 0) -> list[shapes.Event]:
        """What happened since event `after`, oldest first; at most the last thousand."""
        return self._get("events", _Events, after=after).events

    def follow(self, after: int = 0) -> Iterator[shapes.Event]:
        """Events as they happen, without end.

        Raises:
            Unreachable: the gateway went away; go on with the last `seq`.
        """
        headers = {"Accept": "text/event-stream"}
        timeout = httpx.Timeout(TIMEOUT_S, read=30.0)
        try:
            with self._http.stream(
                "GET", "/v1/clusterai/events", params={"after": after}, headers=headers, timeout=timeout
            ) as response:
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield msgspec.json.decode(line[6:], type=shapes.Event)
        except httpx.HTTPError as error:
            raise Unreachable(self.base_url, _why(error)) from None

    # --- what belongs to an account ---

    def account(self) -> shapes.Account:
        return self._get("account", shapes.Account)

    def receipts(
        self, limit: int = 50, before_s: int | None = None, provider: str | None = None
    ) -> list[shapes.Receipt]:
        """Newest first."""
        return self._get("receipts", _Receipts, limit=limit, before_s=before_s, provider=provider).receipts

    def transcript(self, receipt_id: str) -> shapes.Transcript:
        """
        Raises:
            ApiError: 404, none is kept for this account.
        """
        return self._get(f"receipts/{quote(receipt_id, safe='')}/transcript", shapes.Transcript)

    def withdraw(self, wish: Withdrawal, signature: bytes) -> shapes.Withdrawal:
        """Ask for credit back; the same again is answered the same.

        Raises:
            ApiError: refused; its code says why.
        """
        body = {
            "account": hex0x(wish.account),
            "to": hex0x(wish.to),
            "most_wei": wish.most_wei,
            "expires_s": wish.expires_s,
            "nonce": hex0x(wish.nonce),
            "signature": hex0x(signature),
        }
        return self._decode(self._ask("POST", "withdrawals", body), shapes.Withdrawal)

    def withdrawal(self, name: str) -> shapes.Withdrawal:
        """
        Raises:
            ApiError: 404, none is remembered.
        """
        return self._get(f"withdrawals/{quote(name, safe='')}", shapes.Withdrawal)

    # --- what needs the gateway's admin key ---

    def keys(self) -> list[shapes.Key]:
        return self._get("keys", _Keys).keys

    def make_key(self, name: str = "", account: str | None = None) -> shapes.NewKey:
        body = {"name": name} if account is None else {"name": name, "account": account}
        return self._decode(self._ask("POST", "keys", body), shapes.NewKey)

    def revoke_key(self, key_id: str) -> None:
        self._ask("DELETE", f"keys/{quote(key_id, safe='')}", None)

    # --- for what else a gateway offers, such as `sdk.jobs` ---

    def ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterable[bytes] | None = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_S,
        missing_ok: bool = False,
    ) -> httpx.Response:
        """One request, asked once.

        Args:
            missing_ok: hand back a 404 instead of raising it.

        Raises:
            ApiError, Unreachable.
        """
        try:
            response = self._http.request(
                method, path, content=content, params=params, headers=headers, timeout=timeout
            )
        except httpx.HTTPError as error:
            raise Unreachable(self.base_url, _why(error)) from None
        return response if missing_ok and response.status_code == 404 else self._checked(response)

    def told(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        json: object = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """One request, and its answer as a struct."""
        body = None if json is None else msgspec.json.encode(json)
        given = {**({"Content-Type": "application/json"} if body else {}), **(headers or {})}
        return self._decode(self.ask(method, path, content=body, params=params, headers=given), kind)

    @contextmanager
    def streamed(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout,
    ) -> Generator[httpx.Response]:
        """One request whose answer is read as it comes."""
        try:
            with self._http.stream(method, path, params=params, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                yield self._checked(response)
        except httpx.HTTPError as error:
            raise Unreachable(self.base_url, _why(error)) from None

    # --- HTTP ---

    def _get(self, path: str, kind: type[T], **params: str | int | None) -> T:
        given = {name: value for name, value in params.items() if value is not None}
        for attempt in range(ATTEMPTS):
            try:
                response = self._http.get(f"/v1/clusterai/{path}", params=given)
                return self._decode(self._checked(response), kind)
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS - 1:
                    raise Unreachable(self.base_url, _why(error)) from None
        raise AssertionError("every attempt returns or raises")

    def _ask(self, method: str, path: str, body: object) -> httpx.Response:
        try:
            return self._checked(self._http.request(method, f"/v1/clusterai/{path}", json=body))
        except httpx.HTTPError as error:
            raise Unreachable(self.base_url, _why(error)) from None

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        raise problem(response)

    def _decode(self, response: httpx.Response, kind: type[T]) -> T:
        return decoded(self.base_url, response, kind)


class _Nodes(msgspec.Struct):
    nodes: list[shapes.Node]


class _Receipts(msgspec.Struct):
    receipts: list[shapes.Receipt]


class _Events(msgspec.Struct):
    events: list[shapes.Event]


class _Keys(msgspec.Struct):
    keys: list[shapes.Key]


def access(base_url: str | None, api_key: str | None) -> tuple[str, dict[str, str]]:
    """Where the gateway is, and the headers that say for whom; from the environment where they aren't given."""
    environment = os.environ
    found = base_url or environment.get("CLUSTERAI_BASE_URL") or environment.get("OPENAI_BASE_URL")
    key = api_key or environment.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return (found or "http://127.0.0.1:8080").rstrip("/").removesuffix("/v1"), headers


def decoded(base_url: str, response: httpx.Response, kind: type[T]) -> T:
    """
    Raises:
        Unreachable: it is something else.
    """
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.MsgspecError as error:
        raise Unreachable(
            base_url, f"what answers isn't a ClusterAI gateway of this version: {error}"
        ) from None


def problem(response: httpx.Response) -> ApiError:
    """What a gateway says that is wrong."""
    try:
        said = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.MsgspecError:
        said = _Problem(detail=response.text[:300])
    after = response.headers.get("retry-after", "")
    return ApiError(
        response.status_code,
        said.type.rpartition(":")[2] or "http",
        said.detail or response.reason_phrase,
        response.content,
        float(after) if after.isascii() and after.isdigit() else 0.0,
    )


def failed(base_url: str, error: httpx.HTTPError) -> Unreachable:
    return Unreachable(base_url, _why(error))


def _why(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
