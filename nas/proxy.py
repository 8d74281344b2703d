"""Optuna's gRPC proxy, whose calls end: one whose machine vanished would be waited for for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from optuna.storages import GrpcStorageProxy

DEADLINE_S = 90.0
"""Of one call, longer than a proxy waits for its database; the call is then made again."""


class ProxyWithDeadlines(GrpcStorageProxy):
    """Optuna's storage behind its proxy; a call that is not answered in time is an error."""

    def _setup(self) -> None:
        # Optuna lets no option of its channel be given.
        super()._setup()
        self._channel = grpc.intercept_channel(self._channel, _Deadline(DEADLINE_S))
        self._stub = type(self._stub)(self._channel)
        self._cache = type(self._cache)(self._stub)


@dataclass(frozen=True)
class _Call(grpc.ClientCallDetails):  # type: ignore[misc]
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Gives every call so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        """Go on with a call that has a deadline."""
        call = _Call(
            details.method, self._seconds, details.metadata, details.credentials,
            details.wait_for_ready, details.compression,
        )  # fmt: skip
        return continuation(call, request)
