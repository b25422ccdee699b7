"""Makes a provider by its name; an SDK is imported only where a provider needs it.

A server that speaks OpenAI's API is one entry in `SERVERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from config import DEFAULT_TEMPERATURE, Settings
from providers.base import Provider
from providers.outbound import Outbound

# The model of the wheel that comes with the service, and what it needs: it rambles when it is hotter.
EMBEDDED_MODEL = "SmolLM2-135M-Instruct.Q4_1"
EMBEDDED_TEMPERATURE = 0.2


@dataclass(frozen=True)
class Server:
    """A server that speaks OpenAI's API; what is None or empty is as for every provider.

    `missing` names the setting without which there is no such server.
    """

    base_url: str
    key: str
    model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    window: int = 8_192
    needs_examples: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    length_parameter: str = "max_tokens"
    tokenizer_path: str = ""
    missing: str = ""


def _embedded(settings: Settings) -> Server:
    path = settings.embedded_model_path
    return Server(
        f"{settings.embedded_model_url or 'http://127.0.0.1:1'}/v1",
        settings.embedded_model_key.get_secret_value(),
        model=Path(path).stem if path else EMBEDDED_MODEL,
        temperature=EMBEDDED_TEMPERATURE if settings.ai_temperature is None else settings.ai_temperature,
        window=2_048,  # as `embedded.model_server` shares the context out
        needs_examples=True,
        tokenizer_path="/tokenize",
    )


def _waddleai(settings: Settings) -> Server:
    return Server(
        f"{settings.waddleai_base_url.removesuffix('/v1')}/v1",
        settings.waddleai_api_key.get_secret_value(),
        model=settings.waddleai_preferred_model or settings.waddleai_model,
        temperature=settings.waddleai_temperature,
        max_tokens=settings.waddleai_max_tokens,
        timeout=settings.waddleai_timeout,
    )


def _openai(settings: Settings) -> Server:
    # Its newer models take no other name for the length.
    key = settings.openai_api_key.get_secret_value()
    return Server(settings.openai_base_url, key, window=128_000, length_parameter="max_completion_tokens")


def _openrouter(settings: Settings) -> Server:
    key = settings.openrouter_api_key.get_secret_value()
    headers = {"X-Title": "Sidecast"}
    return Server("https://openrouter.ai/api/v1", key, model="openrouter/auto", headers=headers)


def _huggingface(settings: Settings) -> Server:
    return Server("https://router.huggingface.co/v1", settings.hf_token.get_secret_value())


def _custom(settings: Settings) -> Server:
    missing = "" if settings.custom_base_url else "CUSTOM_BASE_URL"
    return Server(settings.custom_base_url, settings.custom_api_key.get_secret_value(), missing=missing)


SERVERS: dict[str, Callable[[Settings], Server]] = {
    "embedded": _embedded,
    "waddleai": _waddleai,
    "openai": _openai,
    "openrouter": _openrouter,
    "huggingface": _huggingface,
    "custom": _custom,
}
NAMES = (*SERVERS, "ollama", "anthropic")


# The settings that hold a provider's address and key, where a community may bring its own.
_ADDRESSES = {
    "openai": "openai_base_url",
    "anthropic": "anthropic_base_url",
    "custom": "custom_base_url",
    "waddleai": "waddleai_base_url",
}
_KEYS = {
    "openai": "openai_api_key",
    "anthropic": "anthropic_api_key",
    "custom": "custom_api_key",
    "waddleai": "waddleai_api_key",
    "openrouter": "openrouter_api_key",
    "huggingface": "hf_token",
}


def with_own(settings: Settings, name: str, base_url: str, key: str) -> Settings:
    """The settings with a community's address and key for a provider; a key of an admin's never goes to that address.

    Raises ValueError for what the provider has not.
    """
    own: dict[str, object] = {}
    if base_url and name == "ollama":
        parts = urlsplit(base_url)
        own = {"ollama_use_tls": parts.scheme == "https", "ollama_host": parts.hostname}
        own |= {"ollama_port": parts.port or (443 if parts.scheme == "https" else 80)}
        own |= {"ollama_cert_path": "", "ollama_verify_ssl": True}
    elif base_url:
        if name not in _ADDRESSES:
            raise ValueError(f"base_url: the provider {name} has one address")
        own = {_ADDRESSES[name]: base_url.rstrip("/"), _KEYS[name]: SecretStr("")}
    if key:
        if name not in _KEYS:
            raise ValueError(f"api_key: the provider {name} takes no key")
        own[_KEYS[name]] = SecretStr(key)
    return settings.model_copy(update=own)


def make_provider(name: str, settings: Settings, outbound: Outbound | None = None) -> Provider:
    """The provider of that name; its connections keep to the rules of `outbound` where there are any.

    Raises ValueError for a setting that it cannot do without.
    """
    if name == "ollama":
        from providers.ollama import Ollama

        return Ollama(settings, outbound)
    if name == "anthropic":
        from providers.anthropic import Anthropic

        return Anthropic(settings, outbound)
    server = SERVERS[name](settings)
    if server.missing:
        raise ValueError(f"{server.missing}: must be set for the provider {name}")
    from providers.openai_compatible import OpenAICompatible

    choices = (server.temperature, settings.ai_temperature, DEFAULT_TEMPERATURE)
    return OpenAICompatible(
        name=name,
        base_url=server.base_url,
        key=server.key,
        model=server.model,
        temperature=next(choice for choice in choices if choice is not None),
        max_tokens=server.max_tokens or settings.ai_max_tokens,
        timeout=server.timeout or settings.request_timeout,
        window=server.window if server.needs_examples else settings.ai_context_tokens or server.window,
        needs_examples=server.needs_examples,
        headers=server.headers,
        length_parameter=server.length_parameter,
        tokenizer_path=server.tokenizer_path,
        outbound=outbound,
    )
