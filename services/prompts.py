"""The prompt for an event: the system prompt, what was said before, the event.

What a user wrote, names included, stands in messages of the role `user` alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from providers.base import Message
from services.cache_manager import Exchange
from services.events import CHAT, ChatEvent
from services.settings import CommunitySettings
from services.triggers import Trigger

_TASKS = {
    "greeting": "The user greets the chat. Greet them back by name.",
    "farewell": "The user is leaving. Say goodbye to them by name.",
    "question": "The user asks something. Answer it.",
    "mention": "The user speaks to you. Answer them.",
    "custom": "The user speaks of something that you care about. Answer them.",
    "event": "Something happened in the channel. React to it in the chat and name the user.",
}
# How a co-host answers, for a model too small to be told; the names are nobody's.
_EXAMPLES = {
    "greeting": (
        ("Anna: hi everyone!", "Hi Anna, welcome to the stream!"),
        ("Sam: hello", "Hello Sam, great to see you!"),
    ),
    "farewell": (
        ("Zoe: ok gotta go, bye", "Bye Zoe, see you next time!"),
        ("Tom: later all", "Take care, Tom!"),
    ),
    "question": (
        ("Max: what is the capital of France?", "It's Paris, Max!"),
        ("Ida: is this live?", "Yes Ida, we are live right now!"),
    ),
    "event": (
        ("Ben raids the channel with their viewers.", "Welcome raiders! Thank you so much, Ben!"),
        ("Leo subscribed to the channel.", "Thank you for the subscription, Leo!"),
    ),
}
_HAPPENED = {
    "subscription": "{name} subscribed to the channel",
    "gift_subscription": "{name} gave a subscription as a gift",
    "follow": "{name} followed the channel",
    "donation": "{name} made a donation",
    "cheer": "{name} cheered",
    "raid": "{name} raids the channel with their viewers",
    "boost": "{name} boosted the server",
    "member_join": "{name} joined",
}


@dataclass(frozen=True)
class Prompt:
    """What to tell a model: the system prompt, the history, the event."""

    system: str
    kind: str
    turns: tuple[Message, ...]

    def messages(self, *, examples: bool) -> tuple[Message, ...]:
        """The messages to send, oldest first. Examples take the place of the task, which a small model misreads."""
        if not examples:
            return ({"role": "system", "content": f"{self.system} {_TASKS[self.kind]}"}, *self.turns)
        shown = [turn for said, answered in _EXAMPLES[self.kind] for turn in _exchange(said, answered)]
        return ({"role": "system", "content": self.system}, *shown, *self.turns)


_EXAMPLES["mention"] = _EXAMPLES["custom"] = _EXAMPLES["question"]


def build_prompt(settings: CommunitySettings, event: ChatEvent, trigger: Trigger, history: list[Exchange]) -> Prompt:
    system = settings.system_prompt
    if settings.persona_name:
        system += f" Your name is {settings.persona_name}."
    if settings.language:
        system += f" Answer in {settings.language}."
    past = [turn for item in history for turn in _exchange(f"{event.name}: {item.said}", item.answered)]
    return Prompt(system, trigger.type, (*past, {"role": "user", "content": _current(event)}))


def _exchange(said: str, answered: str) -> tuple[Message, Message]:
    return {"role": "user", "content": said}, {"role": "assistant", "content": answered}


def what_was_said(event: ChatEvent) -> str:
    """The event as the history keeps it."""
    return event.message_content or f"[{event.message_type}]"


def _current(event: ChatEvent) -> str:
    if event.message_type == CHAT:
        return f"{event.name}: {event.message_content}"
    happened = _HAPPENED.get(event.message_type, "{name}: " + event.message_type).replace("{name}", event.name)
    details = f" {json.dumps(event.metadata, ensure_ascii=False)}" if event.metadata else ""
    said = f" They wrote: {event.message_content}" if event.message_content else ""
    return f"{happened}.{details}{said}"
