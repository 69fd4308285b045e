"""What was dear to make and may soon be asked for again, bounded in bytes: the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class Recent:
    """Values by key, made when first asked for: once, also by several threads that ask at the same time."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """What is held now."""
        with self._lock:
            return self._held()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; what `make` raises is raised and nothing kept."""
        with self._lock:
            if key in self._values:
                return self._used(key)
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._used(key)
            try:
                value = make()
                with self._lock:
                    self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)  # who waits for it finds the value, or tries for itself
        return value

    def _used(self, key: Hashable) -> Any:
        self._values.move_to_end(key)
        return self._values[key]

    def _keep(self, key: Hashable, value: Any) -> None:
        self._values[key] = value
        while self._held() > self.limit_bytes:
            self._values.popitem(last=False)

    def _held(self) -> int:
        return sum(value.nbytes for value in self._values.values())
