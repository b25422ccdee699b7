"""Copies in memory of what Valkey has: those used last, bounded in number and in bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# Of texts in all copies of a kind together, with what Python adds to them.
MAX_BYTES = 16 * 1024 * 1024
ENTRY_BYTES = 400


class Dated(Protocol):
    def __hash__(self) -> int: ...

    @property
    def at(self) -> float: ...

    def encoded(self) -> bytes: ...


Entry = TypeVar("Entry", bound=Dated)


@dataclass
class Copy(Generic[Entry]):
    entries: list[Entry]
    whole: float  # since when nothing is missing; 0 where something may be
    touched: float
    size: int


class Copies(Generic[Entry]):
    """Entries by key, those used last; bounded in number and in bytes."""

    def __init__(self, most: int, ttl: float) -> None:
        self._most = most
        self._ttl = ttl
        self._kept: OrderedDict[str, Copy[Entry]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str, since: float = 0.0) -> list[Entry] | None:
        """What is kept, and has been whole since a moment of the monotonic clock or later."""
        copy = self._kept.get(key)
        if copy is None or copy.whole < since or copy.touched < time.monotonic() - self._ttl:
            return None
        return copy.entries

    def keep(self, key: str, entries: list[Entry], whole: float) -> None:
        self.drop(key)
        size = ENTRY_BYTES + sum(ENTRY_BYTES + len(entry.encoded()) for entry in entries)
        self._kept[key] = Copy(entries, whole, time.monotonic(), size)
        self.size += size
        self._bound()

    def add(self, key: str, entry: Entry, limit: int) -> None:
        """Add to what is kept; the oldest beyond the limit goes."""
        copy = self._kept.get(key)
        now = time.monotonic()
        if copy is None or copy.touched < now - self._ttl:
            self.keep(key, [entry], 0.0)
            return
        size = ENTRY_BYTES + len(entry.encoded())
        gone = copy.entries[: max(len(copy.entries) + 1 - limit, 0)]
        # A new list, since the old one may be in use.
        copy.entries = [*copy.entries[len(gone) :], entry]
        copy.touched = now
        size -= sum(ENTRY_BYTES + len(each.encoded()) for each in gone)
        copy.size += size
        self.size += size
        self._kept.move_to_end(key)
        self._bound()

    def _bound(self) -> None:
        """What was used longest ago goes."""
        while self._kept and (len(self._kept) > self._most or self.size > MAX_BYTES):
            self.drop(next(iter(self._kept)))

    def drop(self, key: str) -> None:
        copy = self._kept.pop(key, None)
        if copy is not None:
            self.size -= copy.size

    def drop_all(self, begin: str) -> None:
        """All whose keys begin so."""
        for key in [key for key in self._kept if key.startswith(begin)]:
            self.drop(key)
