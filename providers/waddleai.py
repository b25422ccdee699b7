"""The WaddleAI proxy, which speaks OpenAI's API and chooses a model itself when asked for `auto`."""

from __future__ import annotations

from config import DEFAULT_TEMPERATURE, Settings
from providers.openai_compatible import OpenAICompatible


def make_waddleai(settings: Settings, model: str) -> OpenAICompatible:
    choices = (settings.waddleai_temperature, settings.ai_temperature, DEFAULT_TEMPERATURE)
    return OpenAICompatible(
        name="waddleai",
        base_url=f"{settings.waddleai_base_url.removesuffix('/v1')}/v1",
        key=settings.waddleai_api_key.get_secret_value(),
        model=model or settings.waddleai_preferred_model or settings.waddleai_model,
        temperature=next(choice for choice in choices if choice is not None),
        max_tokens=settings.waddleai_max_tokens or settings.ai_max_tokens,
        timeout=settings.waddleai_timeout,
    )
