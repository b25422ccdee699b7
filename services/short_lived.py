"""What is kept for minutes or hours, for all instances: in Valkey, and here while that is away or there is none.

What was dropped while Valkey was away is dropped there as soon as it is asked for again.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from services.valkey import Valkey, ValkeyAway

MAX_KEPT = 2_000
MAX_BYTES = 16 * 1024 * 1024
AGAIN_SECONDS = 600.0  # how long what was read is known here


class ShortLived:
    """Texts by name. What was put or read here is known here while Valkey is away, bounded in number."""

    def __init__(self, valkey: Valkey, kind: str) -> None:
        self._valkey = valkey
        self._kind = f"sidecast:{kind}:"
        self._here: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._size = 0
        self._dropped: OrderedDict[str, None] = OrderedDict()

    async def put(self, name: str, text: str, seconds: float) -> None:
        self._keep(name, text, seconds)
        try:
            await self._valkey.run(lambda client: client.set(self._kind + name, text, px=max(int(seconds * 1000), 1)))
        except ValkeyAway:
            pass  # it is kept here

    async def get(self, name: str) -> str | None:
        if name in self._dropped:
            await self.drop(name)
            return None
        try:
            found = await self._valkey.run(lambda client: client.get(self._kind + name))
        except ValkeyAway:
            return self._kept(name)
        if found is None:
            self.forget(name)
            return None
        self._keep(name, str(found), AGAIN_SECONDS)
        return str(found)

    async def take(self, name: str) -> str | None:
        """What is kept, this once; nothing while Valkey is away, which could give it once more."""
        try:
            found = await self._valkey.run(lambda client: client.getdel(self._kind + name))
        except ValkeyAway:
            found = None if self._valkey.is_set else self._kept(name)
        self.forget(name)
        return None if found is None else str(found)

    async def drop(self, name: str) -> None:
        self.forget(name)
        self._dropped[name] = None
        if len(self._dropped) > MAX_KEPT:
            self._dropped.popitem(last=False)
        try:
            await self._valkey.run(lambda client: client.delete(self._kind + name))
        except ValkeyAway:
            return  # it is tried when somebody asks for it
        self._dropped.pop(name, None)

    def forget(self, name: str) -> None:
        """Drop what is kept here."""
        self._size -= len(self._here.pop(name, (0.0, ""))[1])

    def _kept(self, name: str) -> str | None:
        until, text = self._here.get(name, (0.0, None))
        return text if until > time.monotonic() else None

    def _keep(self, name: str, text: str, seconds: float) -> None:
        until = max(time.monotonic() + seconds, self._here.get(name, (0.0, ""))[0])
        self.forget(name)
        self._here[name] = until, text
        self._size += len(text)
        while len(self._here) > MAX_KEPT or self._size > MAX_BYTES or self._is_over(next(iter(self._here))):
            self.forget(next(iter(self._here)))

    def _is_over(self, name: str) -> bool:
        return self._here[name][0] <= time.monotonic()
