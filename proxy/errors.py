"""What can go wrong, as one tree; each error knows how a client is told.

    ProxyError                 500  server_error
    ├── BadRequest             400  invalid_request_error
    │   └── BackendRefused     the backend's own 4xx, relayed
    ├── Unsupported            400  unsupported_parameter
    ├── Unauthenticated        401  authentication_error
    ├── Forbidden              403  permission_error
    ├── UnknownModel           404  model_not_found
    ├── NotFound               404  not_found
    ├── MethodNotAllowed       405  method_not_allowed
    ├── RequestTimeout         408  request_timeout
    ├── TooLarge               413  request_too_large
    ├── UnsupportedMediaType   415  unsupported_media_type
    ├── TooManyRequests        429  rate_limit_exceeded
    │   └── BudgetSpent        429  insufficient_quota
    ├── LimitsUnavailable      503  limits_unavailable
    ├── RecordUnavailable      503  record_unavailable
    └── BackendError           502  backend_error
        ├── BackendUnavailable 502  backend_unavailable
        ├── BackendOverloaded  503  backend_overloaded
        │   └── BackendLimited 429  rate_limit_exceeded
        ├── BackendTimeout     504  backend_timeout
        │   ├── ConnectTimeout      timeout_connect
        │   ├── FirstTokenTimeout   timeout_first_token
        │   ├── StallTimeout        timeout_stall
        │   └── TotalTimeout        timeout_total
        ├── AdapterMissing     502  adapter_missing
        ├── ContextTooLong     400  context_length_exceeded
        ├── InvalidAnswer      502  invalid_answer
        └── LowConfidence      502  low_confidence

A library's errors are translated into these where the library is called, `from error`.

What keeps the proxy, or a command, from its work is another tree: it is told on one line.

    CannotStart                exit 1
    ├── BadConfig              exit 2
    ├── MissingExtra           exit 2
    ├── ArchiveUnavailable     exit 1  record.archive
    ├── BadQuery               exit 1  record.query
    ├── Busy                   exit 1  record.journal
    └── PortInUse              exit 1
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_RETRY = {"x-should-retry": "false"}


class ProxyError(Exception):
    """Something that a client is told about, in OpenAI's form."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the answer."""
        return {}


class BadRequest(ProxyError):
    status = 400
    type = "invalid_request_error"
    code: str | None = None


class Unsupported(BadRequest):
    """No backend in the plan can do what the field `param` asks; another kind of backend could."""

    code = "unsupported_parameter"


class Unauthenticated(ProxyError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(ProxyError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class UnknownModel(BadRequest):
    status = 404
    code = "model_not_found"


class NotFound(BadRequest):
    status = 404
    code = "not_found"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(BadRequest):
    """The client stopped sending in the middle of its request."""

    status = 408
    code = "request_timeout"


class TooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class UnsupportedMediaType(BadRequest):
    status = 415
    code = "unsupported_media_type"


class BackendRefused(BadRequest):
    """A cloud found the request wrong; the client is told what the cloud said.

    `type`, `code` and `param` are the cloud's own; the class's `code` is what our records say.
    """

    code: str | None = "backend_refused"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str,
        code: str | None,
        param: str | None,
        headers: Mapping[str, str] | None = None,
        innererror: bytes | None = None,
    ) -> None:
        """`headers`: those of the cloud's answer that are worth passing on; `innererror`: what
        Azure says more, as JSON: which of its filters struck."""
        super().__init__(message, param)
        self.status = status
        self.type = type
        self.code = code
        self.innererror = innererror
        self._headers = dict(headers or {})

    @property
    def headers(self) -> dict[str, str]:
        return self._headers


class TooManyRequests(ProxyError):
    """The caller, or the whole proxy, has no slot free; `retry_after` in seconds."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {
            "retry-after": str(max(1, round(self.retry_after))),
            "retry-after-ms": str(round(self.retry_after * 1000)),
        }


class BudgetSpent(TooManyRequests):
    """The day's or month's money is spent: before it begins anew, no retry is of use."""

    code = "insufficient_quota"

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, **_NO_RETRY}


class LimitsUnavailable(ProxyError):
    """Use cannot be counted, and routes.yaml says that without this there is no answer."""

    status = 503
    code = "limits_unavailable"

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1", "retry-after-ms": "1000"}


class RecordUnavailable(ProxyError):
    """The exchange cannot be kept, and routes.yaml says that without this there is no answer."""

    status = 503
    code = "record_unavailable"


class BackendError(ProxyError):
    """A backend failed. All have been tried: the client's own retry would multiply that."""

    status = 502
    code: str | None = "backend_error"
    trigger = "unavailable"
    """What a domain's `fallback.when` calls it."""

    @property
    def headers(self) -> dict[str, str]:
        return dict(_NO_RETRY)


class BackendUnavailable(BackendError):
    code = "backend_unavailable"


class BackendOverloaded(BackendError):
    """A backend has no room now; `retry` holds the retry-after headers that it sent, if any."""

    status = 503
    code: str | None = "backend_overloaded"
    trigger = "overloaded"

    def __init__(self, message: str, retry: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.retry = dict(retry or {})

    @property
    def headers(self) -> dict[str, str]:
        """When to come back if that is known; else the client's retry would only multiply ours."""
        return self.retry or super().headers


class BackendLimited(BackendOverloaded):
    """A cloud answered 429. Nobody has tried again meanwhile, so the client may: when, is said by
    the cloud's headers, or left to the client. `code` is the cloud's own: `insufficient_quota`."""

    status = 429
    type = "rate_limit_error"

    def __init__(
        self, message: str, retry: Mapping[str, str] | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, retry)
        self.code = code or "rate_limit_exceeded"

    @property
    def headers(self) -> dict[str, str]:
        """A quota that is used up stays so: then, and only then, a retry is of no use."""
        return {**self.retry, **(_NO_RETRY if self.code == "insufficient_quota" else {})}


class BackendTimeout(BackendError):
    status = 504
    code = "backend_timeout"
    trigger = "timeout"


class ConnectTimeout(BackendTimeout):
    """No connection to the backend stood in time."""

    code = "timeout_connect"


class FirstTokenTimeout(BackendTimeout):
    """The backend took the request and sent nothing of an answer in time."""

    code = "timeout_first_token"


class StallTimeout(BackendTimeout):
    """The backend went silent in the middle of an answer."""

    code = "timeout_stall"


class TotalTimeout(BackendTimeout):
    """The answer was still coming when its time was over."""

    code = "timeout_total"


class AdapterMissing(BackendError):
    """The server that was asked has not loaded the adapter; it may have been restarted."""

    code = "adapter_missing"


class ContextTooLong(BackendError):
    """The prompt does not fit into the model's window; another backend may have a longer one."""

    status = 400
    type = "invalid_request_error"
    code = "context_length_exceeded"
    trigger = "context"


class InvalidAnswer(BackendError):
    """The answer breaks the request's own schemas; `reason` is a code of protocol.toolcheck."""

    code = "invalid_answer"
    trigger = "invalid"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class LowConfidence(BackendError):
    """The answer is valid, but less sure than the domain asks for; `reason` says how that shows."""

    code = "low_confidence"
    trigger = "low_confidence"

    def __init__(self, message: str, reason: str = "low_confidence") -> None:
        super().__init__(message)
        self.reason = reason


class CannotStart(Exception):
    """Why the proxy does not start, or a command cannot go on; one line with place and remedy."""

    exit_code = 1


class BadConfig(CannotStart):
    """A settings file or a command line that cannot be followed."""

    exit_code = 2


class MissingExtra(CannotStart):
    """An optional part that the settings ask for is not installed."""

    exit_code = 2


class PortInUse(CannotStart):
    """Somebody else listens on the address."""
