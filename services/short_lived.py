"""What is kept for minutes or hours, for all instances: in Valkey, and here while that is away or there is none."""

from __future__ import annotations

import time
from collections import OrderedDict

from services.valkey import Valkey, ValkeyAway

MAX_KEPT = 2_000


class ShortLived:
    """Texts by name. What was put or read here is known here while Valkey is away, bounded in number."""

    def __init__(self, valkey: Valkey, kind: str) -> None:
        self._valkey = valkey
        self._kind = f"sidecast:{kind}:"
        self._here: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def put(self, name: str, text: str, seconds: float) -> None:
        self._keep(name, text, seconds)
        try:
            await self._valkey.run(lambda client: client.set(self._kind + name, text, px=max(int(seconds * 1000), 1)))
        except ValkeyAway:
            pass  # it is kept here

    async def get(self, name: str) -> str | None:
        try:
            found = await self._valkey.run(lambda client: client.get(self._kind + name))
        except ValkeyAway:
            return self._kept(name)
        if found is None:
            self.forget(name)
            return None
        return str(found)

    async def take(self, name: str) -> str | None:
        """What is kept, this once."""
        try:
            found = await self._valkey.run(lambda client: client.getdel(self._kind + name))
        except ValkeyAway:
            found = self._kept(name)
        self.forget(name)
        return None if found is None else str(found)

    async def drop(self, name: str) -> None:
        self.forget(name)
        try:
            await self._valkey.run(lambda client: client.delete(self._kind + name))
        except ValkeyAway:
            pass  # it ends by itself

    def forget(self, name: str) -> None:
        """Drop what is kept here."""
        self._here.pop(name, None)

    def _kept(self, name: str) -> str | None:
        until, text = self._here.get(name, (0.0, None))
        return text if until > time.monotonic() else None

    def _keep(self, name: str, text: str, seconds: float) -> None:
        self._here[name] = time.monotonic() + seconds, text
        self._here.move_to_end(name)
        if len(self._here) > MAX_KEPT:
            self._here.popitem(last=False)
