"""The known tricks to make the service ask an address that is not public, when saved and when connected."""

from __future__ import annotations

import asyncio
import socket

import pytest

from config import load_settings
from providers.base import ProviderForbidden
from providers.catalog import make_provider, with_own
from providers.outbound import ForbiddenAddress, Outbound
from tests.providers.test_providers import question
from tests.stubs.openai import StubOpenAI
from tests.stubs.server import running

TRICKS = [
    "http://example.com/v1",
    "https://127.0.0.1/v1",
    "https://127.1/v1",
    "https://2130706433/v1",
    "https://0x7f000001/v1",
    "https://0x7f.1/v1",
    "https://0177.0.0.1/v1",
    "https://0.0.0.0/v1",
    "https://[::1]/v1",
    "https://[::]/v1",
    "https://[::ffff:127.0.0.1]/v1",
    "https://[::ffff:7f00:1]/v1",
    "https://[64:ff9b::7f00:1]/v1",
    "https://[2002:7f00:1::]/v1",
    "https://[fd00::1]/v1",
    "https://[fe80::1]/v1",
    "https://169.254.169.254/latest",
    "https://10.0.0.1/v1",
    "https://172.16.0.1/v1",
    "https://192.168.1.1/v1",
    "https://100.64.0.1/v1",
    "https://198.18.0.1/v1",
    "https://224.0.0.1/v1",
    "https://255.255.255.255/v1",
    "https://localhost/v1",
    "https://localhost./v1",
    "https://LOCALHOST/v1",
    "https://api.localhost/v1",
    "https://postgres/v1",
    "https://router.internal/v1",
    "https://printer.local/v1",
    "https://user@example.com/v1",
    "https://example.com:pass@127.0.0.1/v1",
    "https://example.com@127.0.0.1/v1",
    "https://example.com:5432/v1",
    "https://example.com:6379/v1",
    "https://example.com:22/v1",
    "https://example.com:99999/v1",
    "https://example.com/v1?x=1",
    "https://example.com/v1#x",
    "https:///v1",
    "https://[::1/v1",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/",
    "ftp://example.com/",
    "example.com/v1",
    "",
]


@pytest.mark.parametrize("url", TRICKS)
def test_tricks_are_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddress):
        Outbound().check(url)


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "https://1.1.1.1/v1", "https://[2606:4700::1111]:8443/v1"]
)
def test_public_addresses_are_taken(url: str) -> None:
    Outbound().check(url)


def test_an_admin_may_allow_hosts_ports_networks_and_http() -> None:
    rules = Outbound(("llama.lan:8080", "10.1.0.0/16", "models.internal"), allow_http=True)
    for url in ("http://llama.lan:8080/v1", "http://10.1.2.3:9000/v1", "http://models.internal:1234/v1"):
        rules.check(url)
    for url in ("http://llama.lan:8081/v1", "http://10.2.0.1/v1", "http://other.internal/v1"):
        with pytest.raises(ForbiddenAddress):
            rules.check(url)


async def test_a_name_is_looked_up_when_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads nowhere is taken then, and refused at connect should it lead inside."""
    await Outbound().check_resolved("https://nowhere.invalid/v1")
    resolves_to(monkeypatch, ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(ForbiddenAddress):
        await Outbound().check_resolved("https://two-faced.example/v1")


async def test_a_name_that_leads_inside_later_is_refused_at_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the address that is used is the one that is checked."""
    stub = StubOpenAI()
    async with running(stub.app) as url:
        rules = Outbound((), allow_http=True)
        for name in ("openai", "anthropic", "ollama"):
            settings = with_own(load_settings(), name, "http://rebound.example/v1", "")
            provider = make_provider(name, settings, rules)
            provider.model = "m"
            resolves_to(monkeypatch, ["127.0.0.1"], int(url.rpartition(":")[2]))
            await provider.open()
            try:
                with pytest.raises(ProviderForbidden):
                    await provider.chat(question(provider))
            finally:
                await provider.close()
    assert stub.requests == []


async def test_a_redirect_is_not_followed() -> None:
    stub = StubOpenAI((302, "text/plain", ""))
    async with running(stub.app) as url:
        settings = with_own(load_settings(), "custom", f"{url}/v1", "")
        provider = make_provider("custom", settings, Outbound(("127.0.0.1",), allow_http=True))
        provider.model = "m"
        await provider.open()
        with pytest.raises(Exception, match="custom"):
            await provider.chat(question(provider))
        await provider.close()
    assert len(stub.requests) == 1


def resolves_to(monkeypatch: pytest.MonkeyPatch, addresses: list[str], port: int = 443) -> None:
    """Every name leads there."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    async def lookup(*_: object, **__: object) -> list[tuple[object, ...]]:
        return list(found)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
