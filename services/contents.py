"""What was said, for communities that keep it (`store_content`): sealed, each text for its own row alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from services.logs import Log
from services.settings import CommunitySettings
from services.triggers import COMMAND, Trigger
from services.vault import Unreadable, Vault


@dataclass(frozen=True)
class Said:
    """A message and the reply to it, each where it is known."""

    message: str | None = None
    reply: str | None = None


NOTHING = Said()


class Contents:
    """Seals texts, and reads them again."""

    def __init__(self, vault: Vault, log: Log) -> None:
        self._vault = vault
        self._log = log

    def seal(
        self, interaction_id: UUID, settings: CommunitySettings, trigger: Trigger, message: str, reply: str | None
    ) -> str | None:
        """What is to be kept; None where a community keeps nothing. What is said to be forgotten is no text to keep."""
        if not settings.store_content or trigger.type == COMMAND:
            return None
        text = orjson.dumps([message, reply]).decode()
        return self._vault.seal(_place(interaction_id), text)

    def read(
        self, interaction_id: UUID, settings: CommunitySettings, ended_at: datetime | None, sealed: str | None
    ) -> Said:
        """What was kept, if anything was and is to be for longer."""
        opened = self._open(_place(interaction_id), settings, ended_at, sealed)
        if opened is None:
            return NOTHING
        message, reply = orjson.loads(opened)
        return Said(message or None, reply)

    def seal_alone(self, interaction_id: UUID, part: str, text: str | None) -> str | None:
        """A message or a reply by itself."""
        return self._vault.seal(_place_alone(interaction_id, part), text) if text else None

    def read_alone(
        self, interaction_id: UUID, part: str, settings: CommunitySettings, ended_at: datetime, sealed: str
    ) -> str | None:
        """A message or a reply that was kept by itself, if it is to be for longer."""
        return self._open(_place_alone(interaction_id, part), settings, ended_at, sealed)

    def _open(
        self, place: str, settings: CommunitySettings, ended_at: datetime | None, sealed: str | None
    ) -> str | None:
        if not sealed or kept_for(settings) <= datetime.now(UTC) - (ended_at or datetime.now(UTC)):
            return None
        try:
            return self._vault.open(place, sealed)
        except Unreadable:
            message = "a text that was kept cannot be read (was SECRET_KEY changed without SECRET_KEY_PREVIOUS?)"
            self._log.error("contents.unreadable", message, about=place, result="ERROR")
            return None


def _place_alone(interaction_id: UUID, part: str) -> str:
    return f"{part} {interaction_id}"


def kept_for(settings: CommunitySettings) -> timedelta:
    """How long texts are kept after the end."""
    return timedelta(days=settings.retention_days if settings.store_content else 0)


def _place(interaction_id: UUID) -> str:
    return f"text {interaction_id}"
