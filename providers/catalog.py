"""Makes a provider by its name; an SDK is imported only where a provider needs it.

A server that speaks OpenAI's API is one entry in `SERVERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from config import DEFAULT_TEMPERATURE, Settings
from providers.base import Provider

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
    return Server(settings.openai_base_url, key, length_parameter="max_completion_tokens")


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


def make_provider(name: str, model: str, settings: Settings) -> Provider:
    """The provider of that name, asking for `model` or, where that is empty, for the one its settings name.

    Raises ValueError for a setting that it cannot do without.
    """
    if name == "ollama":
        from providers.ollama import Ollama

        return Ollama(settings, model or settings.ollama_model)
    if name == "anthropic":
        from providers.anthropic import Anthropic

        return Anthropic(settings, _required(model, name))
    server = SERVERS[name](settings)
    if server.missing:
        raise ValueError(f"{server.missing}: must be set for the provider {name}")
    from providers.openai_compatible import OpenAICompatible

    choices = (server.temperature, settings.ai_temperature, DEFAULT_TEMPERATURE)
    return OpenAICompatible(
        name=name,
        base_url=server.base_url,
        key=server.key,
        model=_required(model or server.model, name),
        temperature=next(choice for choice in choices if choice is not None),
        max_tokens=server.max_tokens or settings.ai_max_tokens,
        timeout=server.timeout or settings.request_timeout,
        needs_examples=server.needs_examples,
        headers=server.headers,
        length_parameter=server.length_parameter,
        tokenizer_path=server.tokenizer_path,
    )


def _required(model: str, name: str) -> str:
    if not model:
        raise ValueError(f"AI_MODEL: must name a model for the provider {name} (as a fallback: {name}/MODEL)")
    return model
