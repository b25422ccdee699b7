"""Makes a text safe and fit for the platform it goes to; has one ready where no model answered.

What a model says, and what users make it say, is outside text: on its way out nothing of it may be a command, call
people who were not addressed, lead somewhere unasked, or look as though it were two messages. Each rule has its source.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from services.events import ChatEvent
from services.settings import CommunitySettings
from services.triggers import Trigger

# Lengths: Twitch 500 characters (dev.twitch.tv/docs/api/reference#send-chat-message), Discord 2,000 UTF-16 units
# (discord.com/developers/docs/resources/message), Slack 4,000 (advised in its RTM docs), YouTube 200 (what its chat box
# takes; not in its API docs), Kick 500 (not in its docs; as its chat box).
LIMITS = {"twitch": 500, "youtube": 200, "discord": 2000, "slack": 4000, "kick": 500}
DEFAULT_LIMIT = 500
# These show one line, and every sign of Markdown as it is.
ONE_LINE = frozenset({"twitch", "youtube", "kick"})
MOST_ROUNDS = 8
ECHO_WORDS = 8
MOST_CHARACTERS = 20_000
ELLIPSIS = "…"

# Controls, bidi overrides (CVE-2021-42574), tag characters (which hide text), zero width, private use; not the joiners
# that some scripts and emoji need.
_UNSEEN = regex.compile(
    r"[\p{Cc}--[\n\t]]|[\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0]"
    r"|[\U000e0000-\U000e007f]|\p{Cs}|\p{Co}",
    regex.V1,
)
# What models leak of their own making: special tokens, role labels, what they are.
_TOKENS = regex.compile(r"<\|[^|<>]{0,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:think|assistant|system|user)>", regex.I)
_LABEL = regex.compile(r"^\s*(?:assistant|system|user|ai|bot|co-?host|response|reply|answer)\s*:\s*", regex.I)
_AS_AN_AI = regex.compile(
    r"\b(?:as|being) an? (?:ai|artificial intelligence|(?:large )?language model)"
    r"(?: (?:language )?model| assistant)?\b,?\s*",
    regex.I,
)
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“", "'": "'", "`": "`", "「": "」"}
# Discord (docs/reference#message-formatting) and Slack (docs.slack.dev/messaging/formatting-message-text) call people,
# roles and channels by these; a Slack link's label could be anything.
_FORMS = regex.compile(r"<(?:@[!&]?|#|!|:[\w~]+:|/\w+:|t:)[^<>\n]{0,100}>")
_LABELLED = regex.compile(r"<((?:https?|mailto|tel):[^|<>\s]{1,2000})(?:\|([^<>]{0,200}))?>")
_EVERYONE = regex.compile(r"[@＠﹫](?=\s?(?:everyone|here|channel|all|room)\b)", regex.I)
_AT = regex.compile(r"(?<![\w.])[@＠﹫]+(?=([\w.\-]{1,64}))")
# Markdown (spec.commonmark.org): images and links that hide where they lead.
_IMAGE = regex.compile(r"!\[([^\[\]\n]{0,200})\]\s?\([^()\n]{0,2000}\)")
_HIDDEN = regex.compile(r"\[([^\[\]\n]{0,200})\]\s?\(\s*<?([^()\s<>]{0,2000})>?[^()\n]{0,200}\)")
_MARKUP = regex.compile(
    r"\*{1,3}(?=\S)([^*\n]{1,500})(?<=\S)\*{1,3}|~~([^~\n]{1,500})~~|__([^_\n]{1,500})__|`{1,3}([^`]{1,2000})`{1,3}"
)
_LINE_SIGNS = regex.compile(r"(?m)^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+)")
_SLACK_BOLD = regex.compile(r"\*\*(?=\S)([^*\n]{1,500})(?<=\S)\*\*")
# Schemes that run something (html.spec.whatwg.org, javascript: URLs), links, and names that platforms make links of.
_SCRIPTS = regex.compile(r"(?:java|vb|live)script\s*:|\bdata\s*:\s*\w+/|\bfile\s*:\s*/", regex.I)
_LINK = regex.compile(r"\b[a-z][a-z0-9+.\-]{1,20}://[^\s<>\"]+|\bwww\.[^\s<>\"]+", regex.I)
_BARE = regex.compile(
    r"(?<!\w)((?:[\w](?:[\w\-]{0,61}[\w])?\.)+(?:com|net|org|io|gg|tv|co|me|ly|app|dev|ru|cn|de|uk|fr|es|it|nl|"
    r"pl|br|jp|"
    r"info|biz|xyz|top|shop|site|online|store|club|live|link|click|zip|mov|to|cc|ws|be|us|eu|gl|gd|su|ai|vip|fun|icu|page))"
    r"(?![\w\-])(?::\d{1,5})?(?:[/?#][^\s<>\"]*)?",
    regex.I,
)
_HOST = regex.compile(r"(?:[a-z][a-z0-9+.\-]*://)?(?:[^\s/@]*@)?([^\s/:?#]+)", regex.I)
_SPACES = regex.compile(r"\s+")
_LINES = regex.compile(r"\s*\n\s*\n\s*")
_GRAPHEME = regex.compile(r"\X")
_SENTENCE = regex.compile(r"[.!?…。！？][\"”»)\]]*(?=\s|$)")
# Commands of Twitch (dev.twitch.tv/docs/irc/chat-commands), Discord, Slack and most bots begin with one of these.
_SIGNS = frozenset("/.!\\")
_LOOK_ALIKE = frozenset("∕⁄⧸⟋╱ǃ﹗․‥…‼⁉⁈⹀∖﹨")


@dataclass(frozen=True)
class Manner:
    """How a reply is to look: where it goes, what is put before it, whom it may call, where it may lead.

    `system` is what the model was told, which it may not repeat.
    """

    platform: str
    prefix: str = ""
    names: Sequence[str] = ()
    links: Sequence[str] = ()
    system: str = ""

    @property
    def limit(self) -> int:
        """Longest message, the prefix included, in the platform's own units."""
        return LIMITS.get(self.platform, DEFAULT_LIMIT)


def fit(text: str, manner: Manner) -> str:
    """The text to go after the prefix: safe, and so short that both fit; may be empty. What fits already stays."""
    text = text[:MOST_CHARACTERS]
    if _repeats(text, manner.system):
        return ""
    # What is taken out can leave something together that must go as well.
    for _ in range(MOST_ROUNDS):
        before, text = text, _shorten(_clean(text, manner), manner)
        if text == before:
            return text
    return ""


def fit_prefix(prefix: str) -> str:
    """What is put before every reply, without what would make a command or a second line of it."""
    return _without_signs(_SPACES.sub(" ", _UNSEEN.sub("", prefix)))


def _clean(text: str, manner: Manner) -> str:
    text = _UNSEEN.sub("", text)
    text = _without_artefacts(text)
    text = _without_forms(text, manner)
    text = _without_links(text, manner.links)
    text = _EVERYONE.sub("", text)
    known = {name.casefold().lstrip("@") for name in manner.names if name}
    text = _AT.sub(
        lambda found: found[0] if found[1].casefold().rstrip(".-") in known and found[0] == "@" else "", text
    )
    if manner.platform in ONE_LINE:
        text = _SPACES.sub(" ", _without_markup(text))
    else:
        text = _LINES.sub("\n\n", text)
        text = _SLACK_BOLD.sub(r"*\1*", text) if manner.platform == "slack" else text
    return _without_signs(text.strip())


def _without_artefacts(text: str) -> str:
    text = _AS_AN_AI.sub("", _LABEL.sub("", _TOKENS.sub("", text))).strip()
    while len(text) > 1 and text[-1] == _QUOTES.get(text[0]) and text.count(text[0]) <= 2 and text.count(text[-1]) <= 2:
        text = text[1:-1].strip()
    return text


def _without_forms(text: str, manner: Manner) -> str:
    def link(found: regex.Match[str]) -> str:
        label = found[2] or ""
        return f"{label} {found[1]}".strip() if _allowed(found[1], manner.links) else label

    text = _LABELLED.sub(link, text)
    text = _FORMS.sub("", text)
    text = _IMAGE.sub(r"\1", text)
    return _HIDDEN.sub(lambda found: f"{found[1]} {found[2]}" if _allowed(found[2], manner.links) else found[1], text)


def _without_links(text: str, links: Sequence[str]) -> str:
    text = _SCRIPTS.sub("", text)
    text = _LINK.sub(lambda found: found[0] if _allowed(found[0], links) else "", text)
    return _BARE.sub(lambda found: found[0] if _allowed(found[0], links) else "", text)


def _allowed(address: str, links: Sequence[str]) -> bool:
    """Whether an address leads to one of these hosts, or to a part of one, by http."""
    scheme, separator, _ = address.partition("://")
    if (separator and scheme.lower() not in {"http", "https"}) or "@" in address:
        return False
    found = _HOST.match(address)
    host = found[1].casefold().rstrip(".") if found else ""
    return any(host == link or host.endswith("." + link) for link in links if link)


def _without_markup(text: str) -> str:
    text = _LINE_SIGNS.sub("", text)
    return _MARKUP.sub(lambda found: next(part for part in found.groups() if part is not None), text)


def _without_signs(text: str) -> str:
    """Without what begins a command, or looks so to a platform that folds look-alikes (Unicode NFKC)."""
    at = 0
    while at < len(text) and _begins_command(text[at]):
        at += 1
    return text[at:]


def _begins_command(sign: str) -> bool:
    if sign in _LOOK_ALIKE or sign.isspace() or unicodedata.category(sign) in {"Cf", "Mn", "Me"}:
        return True
    return unicodedata.normalize("NFKC", sign)[:1] in _SIGNS


def _repeats(text: str, system: str) -> bool:
    """Whether eight words in a row are of what the model was told."""
    words = _words(text)
    told = _told(system)
    return any(words[at : at + ECHO_WORDS] in told for at in range(len(words) - ECHO_WORDS + 1))


@functools.lru_cache(maxsize=1_000)
def _told(system: str) -> frozenset[tuple[str, ...]]:
    words = _words(system)
    return frozenset(words[at : at + ECHO_WORDS] for at in range(len(words) - ECHO_WORDS + 1))


def _words(text: str) -> tuple[str, ...]:
    return tuple(regex.findall(r"\w+", text.casefold()))


def _shorten(text: str, manner: Manner) -> str:
    """Short enough together with the prefix: cut after a sentence if half of it stays, else after a word."""
    room = manner.limit - _length(manner.prefix, manner)
    if _length(text, manner) <= room:
        return text
    kept = _head(text, room - 1, manner)
    ends = [found.end() for found in _SENTENCE.finditer(kept)]
    if ends and ends[-1] * 2 >= len(kept):
        return kept[: ends[-1]]
    cut = kept.rsplit(maxsplit=1)[0] if " " in kept.strip() else kept
    cut = cut.rstrip(" ,;:")
    return cut + ELLIPSIS if cut else ""


def _head(text: str, room: int, manner: Manner) -> str:
    """As many whole characters, as people see them (UAX #29), as there is room for."""
    kept, used = [], 0
    for found in _GRAPHEME.finditer(text):
        used += _length(found[0], manner)
        if used > room:
            break
        kept.append(found[0])
    return "".join(kept)


def _length(text: str, manner: Manner) -> int:
    """In code points, or as Discord counts in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2 if manner.platform == "discord" else len(text)


_LATER = "I can't think clearly right now, please ask me again in a bit."
_CANNED = {
    "greeting": "Hello {name}!",
    "farewell": "See you soon, {name}!",
    "mention": f"Hi {{name}}! {_LATER}",
    "custom": f"Hi {{name}}! {_LATER}",
    "question": f"Good question, {{name}}! {_LATER}",
    "subscription": "Thank you for the subscription, {name}!",
    "gift_subscription": "Thank you for the gift, {name}!",
    "follow": "Thank you for the follow, {name}!",
    "donation": "Thank you for the donation, {name}!",
    "cheer": "Thank you for the cheer, {name}!",
    "raid": "Welcome, raiders! Thank you, {name}!",
    "boost": "Thank you for the boost, {name}!",
    "member_join": "Welcome, {name}!",
    "event": "Thank you, {name}!",
}


def canned_text(event: ChatEvent, trigger: Trigger) -> str:
    """What to say to this trigger without a model."""
    kind = event.message_type if trigger.type == "event" else trigger.type
    return _CANNED.get(kind, _CANNED["event"]).replace("{name}", event.name)


def manner_of(event: ChatEvent, settings: CommunitySettings) -> Manner:
    """How a reply to an event is to look in a community."""
    names = (event.username, event.display_name or "")
    links = tuple(link.casefold() for link in settings.allowed_links)
    return Manner(event.platform, fit_prefix(settings.response_prefix), names, links, settings.system_prompt)
