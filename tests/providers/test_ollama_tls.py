"""Ollama behind TLS: its own CA, a client's certificate, and the switch that turns the check off."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from config import load_settings
from providers.base import ChatRequest, ProviderUnreachable
from providers.ollama import Ollama
from tests.stubs.ollama import StubOllama
from tests.stubs.server import running

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def served(authority: trustme.CA, folder: Path, **settings: Any) -> AsyncIterator[str]:
    """The port of an Ollama whose certificate `authority` has signed."""
    certificate, key = folder / "server.pem", folder / "server.key"
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    async with running(StubOllama().app, certfile=str(certificate), keyfile=str(key), **settings) as url:
        yield url.rpartition(":")[2]


async def answer(port: str, **settings: Any) -> str:
    provider = Ollama(load_settings(ollama_host="localhost", ollama_port=port, ollama_use_tls=True, **settings))
    await provider.open()
    try:
        await provider.check()
        return (await provider.chat(ChatRequest(HELLO, "llama3.2"))).text
    finally:
        await provider.close()


async def test_its_own_ca_is_checked_and_no_other(authority: trustme.CA, tmp_path: Path) -> None:
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(own)
    trustme.CA().cert_pem.write_to_path(other)
    async with served(authority, tmp_path) as port:
        assert await answer(port, ollama_cert_path=str(own)) == "Hello from Ollama"
        for refused in ({"ollama_cert_path": str(other)}, {}):
            with pytest.raises(ProviderUnreachable):
                await answer(port, **refused)
        assert await answer(port, ollama_verify_ssl=False) == "Hello from Ollama"


async def test_a_server_that_wants_a_client_certificate_gets_it(authority: trustme.CA, tmp_path: Path) -> None:
    ca, client = tmp_path / "ca.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("sidecast").private_key_and_cert_chain_pem.write_to_path(client)
    async with served(authority, tmp_path, ca_certs=str(ca), verify_mode=ssl.CERT_REQUIRED) as port:
        assert await answer(port, ollama_cert_path=str(client), ollama_verify_ssl=False) == "Hello from Ollama"
        with pytest.raises(ProviderUnreachable):
            await answer(port, ollama_cert_path=str(client))
        with client.open("ab") as file:
            file.write(authority.cert_pem.bytes())
        assert await answer(port, ollama_cert_path=str(client)) == "Hello from Ollama"
        with pytest.raises(ProviderUnreachable):
            await answer(port, ollama_cert_path=str(ca))
