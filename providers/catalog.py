"""Makes a provider by its name; a provider's SDK is imported only where that provider is used."""

from __future__ import annotations

from config import Settings
from providers.base import Provider

NAMES = ("embedded", "ollama", "waddleai")


def make_provider(name: str, model: str, settings: Settings) -> Provider:
    """The provider of that name, asking for `model` or, where that is empty, for the one its settings name.

    Raises ValueError for a name there is no provider of.
    """
    if name == "ollama":
        from providers.ollama import Ollama

        return Ollama(settings, model or settings.ollama_model)
    if name == "waddleai":
        from providers.waddleai import make_waddleai

        return make_waddleai(settings, model)
    if name == "embedded":
        from providers.embedded import make_embedded

        return make_embedded(settings, model)
    raise ValueError(f"there is no provider {name!r}: use {', '.join(NAMES)}")
