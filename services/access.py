"""Who calls: by a key or a JWT. Addresses that keep presenting wrong ones are not listened to for a while."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict

from services.jwts import TOKEN, Jwts, ends_at
from services.keys import Keys, Principal

MOST_FAILURES = 100
WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 10_000
MAX_KNOWN = 10_000


class TooManyAttempts(Exception):
    """The address has presented too many wrong keys; `seconds` until it is listened to again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Access:
    """Identifies callers. What was right from an address before goes on to be, whatever else comes from there."""

    def __init__(self, keys: Keys, jwts: Jwts) -> None:
        self._keys = keys
        self._jwts = jwts
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when the window began, and how many
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def identify(self, credential: str, address: str) -> Principal | None:
        """Whose key or token it is, or None. Raises TooManyAttempts."""
        if not credential:
            return None
        if self._failures:
            address = _network(address)
            left = self._blocked(address)
            if left and _pair(credential, address) not in self._known:
                raise TooManyAttempts(left)
        principal = await self._keys.find(credential)
        if principal is None and credential.count(".") == 2:
            principal = await self._jwts.find(credential)
        if principal is None:
            self._note_failure(_network(address))
        elif self._failures:
            self._note_success(_pair(credential, address))
        return principal

    @staticmethod
    def ends_at(credential: str, principal: Principal) -> float | None:
        """When a token that was found valid ends, in seconds since 1970; None for a key."""
        return ends_at(credential) if principal.name.startswith(TOKEN) else None

    def _blocked(self, address: str) -> float:
        """Seconds for which an address is not listened to."""
        began, count = self._failures.get(address, (0.0, 0))
        left = began + WINDOW_SECONDS - time.monotonic()
        return left if count >= MOST_FAILURES and left > 0 else 0.0

    def _note_failure(self, address: str) -> None:
        now = time.monotonic()
        began, count = self._failures.get(address, (now, 0))
        if now - began > WINDOW_SECONDS:
            began, count = now, 0
        self._failures[address] = began, count + 1
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def _note_success(self, pair: bytes) -> None:
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def _pair(credential: str, address: str) -> bytes:
    return hashlib.sha256(f"{address}\0{credential}".encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """What counts as one: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network(f"{found}/64", strict=False))
