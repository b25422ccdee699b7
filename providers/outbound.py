"""Where a community's own base URL may lead: to public addresses by https, and nowhere into the admin's network.

A URL is looked at when it is saved and, by the very address that is used, at each connection (OWASP's "Server-Side
Request Forgery Prevention Cheat Sheet"; ranges as in the IANA's special-purpose registries).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from config import PROBE_TIMEOUT

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PORTS = {"https": {443, 8443}, "http": {80, 8080}}
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home.arpa")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")


class ForbiddenAddress(OSError):
    """The address may not be used; the text says which rule it breaks, and nothing of what is there."""


@dataclass(frozen=True)
class Outbound:
    """The rules. `allowed` are hosts, `host:port` or networks that an admin lets communities use all the same."""

    allowed: Sequence[str] = ()
    allow_http: bool = False

    def check(self, url: str) -> tuple[str, int]:
        """The host and port of a URL that may be used, as far as it can be read. Raises ForbiddenAddress."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ForbiddenAddress("must be a URL") from None
        schemes = ("https", "http") if self.allow_http else ("https",)
        if parts.scheme not in schemes or not host:
            raise ForbiddenAddress(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ForbiddenAddress("must have no user, password, query or fragment")
        port = port or (443 if parts.scheme == "https" else 80)
        if self._is_allowed(host, port):
            return host, port
        if port not in PORTS[parts.scheme]:
            raise ForbiddenAddress(f"must use port {' or '.join(map(str, sorted(PORTS[parts.scheme])))}")
        self._check_host(host)
        return host, port

    async def check_resolved(self, url: str) -> None:
        """As `check`, and where the name leads to now; one that leads nowhere may yet. Raises ForbiddenAddress."""
        host, port = self.check(url)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError):
            return
        for *_, address in found:
            self.check_address(host, port, str(address[0]))

    def check_address(self, host: str, port: int, address: str) -> None:
        """Raises ForbiddenAddress for an address that is not public, unless an admin allows it."""
        found = ipaddress.ip_address(address.partition("%")[0])
        if not (self._is_allowed(host, port) or self._is_allowed(str(found), port) or is_public(found)):
            raise ForbiddenAddress("is not a public address")

    def _check_host(self, host: str) -> None:
        literal = _literal(host)
        if literal is not None:
            if not (is_public(literal) or self._is_allowed(str(literal), 0)):
                raise ForbiddenAddress("is not a public address")
            return
        name = host.rstrip(".").lower()
        # What the system would read as a number: 2130706433, 0x7f.1, 127.1.
        try:
            socket.inet_aton(name)
        except (OSError, UnicodeError):
            pass
        else:
            raise ForbiddenAddress("must be written as a name, or as an address of four numbers")
        if "." not in name or any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
            raise ForbiddenAddress("is not a public name")

    def _is_allowed(self, host: str, port: int) -> bool:
        literal = _literal(host)
        for entry in self.allowed:
            if entry in {host, f"{host}:{port}"}:
                return True
            if literal is not None and "/" in entry and literal in ipaddress.ip_network(entry, strict=False):
                return True
        return False


class OutboundResolver(AbstractResolver):
    """Resolves names for connections, and refuses what the rules forbid."""

    def __init__(self, rules: Outbound) -> None:
        self._rules = rules
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError, and of these ForbiddenAddress."""
        found = await self._system.resolve(host, port, family)
        for entry in found:
            self._rules.check_address(host, port, entry["host"])
        return found

    async def close(self) -> None:
        await self._system.close()


def is_public(address: Address) -> bool:
    """Whether an address is for anyone's use, seen through the ways to write an IPv4 address in IPv6."""
    inner: Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _SIX_TO_FOUR:
            inner = address.sixtofour
        elif address.teredo:
            inner = address.teredo[1]
        elif any(address in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
