"""The model that the service brings itself: llama.cpp, which speaks OpenAI's API on a loopback port."""

from __future__ import annotations

from pathlib import Path

from config import Settings
from providers.openai_compatible import OpenAICompatible

DEFAULT_MODEL = "SmolLM2-135M-Instruct.Q4_1"
# A model this small rambles when it is hotter.
DEFAULT_TEMPERATURE = 0.2


def make_embedded(settings: Settings, model: str) -> OpenAICompatible:
    own_name = Path(settings.embedded_model_path).stem if settings.embedded_model_path else DEFAULT_MODEL
    return OpenAICompatible(
        name="embedded",
        base_url=f"{settings.embedded_model_url or 'http://127.0.0.1:1'}/v1",
        key=settings.embedded_model_key.get_secret_value(),
        model=model or own_name,
        temperature=DEFAULT_TEMPERATURE if settings.ai_temperature is None else settings.ai_temperature,
        max_tokens=settings.ai_max_tokens,
        timeout=settings.request_timeout,
        needs_examples=True,
    )
