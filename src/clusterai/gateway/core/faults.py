"""What a client is told when something is wrong: OpenAI's error envelope, and what to do next.

400 the request        401 the key             402 credit is spent      403 the key's scope   404 model, receipt
409 same key runs now  413 body too large      422 idempotency misuse   429 slower            5xx ours or the network's
"""

from typing import Any, Literal

import msgspec

Kind = Literal[
    "invalid_request_error",
    "authentication_error",
    "insufficient_quota",
    "permission_error",
    "rate_limit_error",
    "server_error",
    "service_unavailable",
]


class Fault(Exception):
    """One answer that isn't the wanted one. Raised on the way in, where only the desk catches it.

    Attributes:
        retry: None lets the client decide; False sends `x-should-retry: false`.
    """

    def __init__(
        self,
        status: int,
        kind: Kind,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind: Kind = kind
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.retry = retry

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def json(self) -> bytes:
        return msgspec.json.encode(self.body())

    def headers(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        if self.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % max(1, -int(-self.retry_after_s // 1))))
        if self.retry is not None:
            found.append((b"x-should-retry", b"true" if self.retry else b"false"))
        if self.status == 405:
            found.append((b"allow", b"POST"))
        return found


def bad(message: str, param: str | None = None, code: str = "invalid_value") -> Fault:
    return Fault(400, "invalid_request_error", code, message, param)


def unknown_model(name: str, known: str) -> Fault:
    return Fault(
        404,
        "invalid_request_error",
        "model_not_found",
        f"the model {name[:100]!r} does not exist here; use one of: {known}",
        "model",
    )


def of_failure(code: str, detail: str, retry_after_s: float, *, partial: bool, charged_wei: int = 0) -> Fault:
    """A failed request, as HTTP says it. After partial work a client must not retry by itself: it would pay twice."""
    retry = False if partial else None
    charged = f"{charged_wei} wei were charged for what ended" if charged_wei else "nothing was charged"
    match code:
        case "insufficient_credit":
            return Fault(402, "insufficient_quota", "insufficient_quota", detail, retry=False)
        case "busy":
            return Fault(
                429, "rate_limit_error", "providers_busy", f"{detail}; try again", None, retry_after_s, retry
            )
        case "bad_request" | "unwanted":
            message = f"{detail}; {charged}" if charged_wei else detail
            return Fault(400, "invalid_request_error", "provider_refused", message, retry=retry)
        case "shutting_down":
            return Fault(503, "service_unavailable", code, detail, None, 2.0, retry)
        case "absent" | "suspended" | "unfunded":
            return Fault(
                503,
                "service_unavailable",
                f"no_provider_{code}",
                f"{detail}; {charged}, try again",
                None,
                max(1.0, retry_after_s),
                retry,
            )
        case _:
            return Fault(
                502,
                "server_error",
                code,
                f"{detail}; {charged}",
                None,
                max(1.0, retry_after_s),
                retry,
            )
