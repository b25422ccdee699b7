"""Makes a text safe and fit for the platform it goes to; has one ready where no model answered.

What a model says, and what users make it say, is outside text: on its way out nothing of it may be a command, call
people who were not addressed, lead somewhere unasked, or look as though it were two messages. Each rule has its source.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import regex

from services.events import ChatEvent
from services.settings import CommunitySettings
from services.texts import fold, head, without_tokens

# Lengths: Twitch 500 characters (dev.twitch.tv/docs/api/reference#send-chat-message), Discord 2,000 UTF-16 units
# (discord.com/developers/docs/resources/message), Slack 4,000 (advised in its RTM docs), YouTube 200 (what its chat box
# takes; not in its API docs), Kick 500 (not in its docs; as its chat box).
LIMITS = {"twitch": 500, "youtube": 200, "discord": 2000, "slack": 4000, "kick": 500}
DEFAULT_LIMIT = 500
# These show one line, and every sign of Markdown as it is.
ONE_LINE = frozenset({"twitch", "youtube", "kick"})
MOST_ROUNDS = 8
# What may be put around a text that was said of late: more than a channel is given replies in that time by default.
_SIGNS_AROUND = ("✨", "🎉", "💜", "🙌", "👋", "🌟", "😊")
FRAMES = (
    *(("{name}: ", ""), ("", " ({name})"), ("{name}, ", "")),
    *(("", f" {sign}") for sign in _SIGNS_AROUND),
    *((f"{sign} ", "") for sign in _SIGNS_AROUND),
    *(("{name}: ", f" {sign}") for sign in _SIGNS_AROUND),
)
# So much of what the model was told, letter by letter, is an echo of it: facts in it may be told again.
ECHO_SHARE = 0.6
ECHO_LETTERS = 120
LEAST_ECHO = 20
MOST_CHARACTERS = 6_000
ELLIPSIS = "…"

# Controls, bidi overrides (CVE-2021-42574), tag characters and selectors (which hide text), blanks that are none,
# private use; not the joiners that some scripts and emoji need.
_BREAKS = regex.compile(r"[\r\v\f\u0085\u2028\u2029]")
_UNSEEN = regex.compile(
    r"[\p{Cc}--[\n\t]]|[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e]"
    r"|[\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb]|[\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
    r"|\p{Cs}|\p{Co}",
    regex.V1,
)
# What models leak of their own making: thoughts, special tokens, role labels, what they are.
_THOUGHT = regex.compile(r"<think>.*?</think>", regex.I | regex.S)
_LABEL = regex.compile(r"^\W*(?:assistant|user|ai|bot|co-?host)\W{0,3}:\W{0,3}", regex.I)
_AS_AN_AI = regex.compile(
    r"(?:^|(?<=[.!?]\s))as an? (?:ai|artificial intelligence|(?:large )?language model)"
    r"(?: (?:language )?model| assistant)?,\s*",
    regex.I,
)
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“", "'": "'", "`": "`", "「": "」", "『": "』", "‘": "’"}
# Discord (docs/reference#message-formatting) and Slack (docs.slack.dev/messaging/formatting-message-text) call people,
# roles and channels by these; a Slack link's label could be anything.
_FORMS = regex.compile(r"<(?:@[!&]?|#|!|:[\w~]+:|/\w+:|t:)[^<>]{0,4000}>")
_OPENED = regex.compile(r"(?<!<)<++(?=[@!#])")
_LABELLED = regex.compile(r"<((?:https?|mailto|tel):[^|<>\s]{1,2000})(?:\|([^<>]{0,200}))?>")
_EVERYONE = regex.compile(r"[@＠﹫](?=\s?(?:everyone|here|channel|all|room)\b)", regex.I)
_AT = regex.compile(r"(?<![@＠﹫])[@＠﹫]++(?=([\w.\-\p{N}\p{So}\p{M}]{1,64}))")
# Markdown (spec.commonmark.org): images and links that hide where they lead.
_IMAGE = regex.compile(r"!\[([^\[\]\n]{0,200})\]\([^()\n]{0,2000}\)")
_HIDDEN = regex.compile(r"\[([^\[\]\n]{0,200})\]\(\s?<?([^()\s<>]{0,2000})>?[^()\n]{0,200}\)")
_MARKUP = regex.compile(
    r"(?<!\w)\*{1,3}(?=\S)([^*\n]{1,500})(?<=\S)\*{1,3}(?!\w)|~~([^~\n]{1,500})~~"
    r"|(?<!\w)__([^_\n]{1,500})__(?!\w)|`{1,3}([^`]{1,2000})`{1,3}"
)
_LINE_SIGNS = regex.compile(r"(?m)^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+(?!\d))")
_SLACK_BOLD = regex.compile(r"\*\*(?=\S)([^*\n]{1,500})(?<=\S)\*\*")
# Schemes that run something (html.spec.whatwg.org, javascript: URLs).
_SCRIPTS = regex.compile(r"((?:java|vb|live)script)\s*:", regex.I)
_DATA = regex.compile(r"\bdata:(?=\w+/[\w.+\-]+[;,])|\bfile:(?=/)", regex.I)
# Links, and names that platforms make links of. Letters of scripts without spaces end an address, as for a reader.
_LETTER = r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{Nd}\-]"
_LINK = regex.compile(
    r"(?<![a-z0-9])(?:[a-z][a-z0-9+.\-]{1,20}://|www\.)(?:[!#-;=?-~]|" + _LETTER + r")++",
    regex.I,
)
_LOCAL_PART = regex.compile(r"(?<![a-z0-9._+\-])[a-z0-9._+\-]{1,64}+@(?=[a-z0-9\-]+\.[a-z])", regex.I)
_BARE = regex.compile(
    rf"(?<!{_LETTER})(?<!{_LETTER}\.)((?:{_LETTER}++\.)+)([\p{{L}}]{{2,24}})(?!{_LETTER})"
    r"(?::\d{1,5})?([/?#](?:[!#-;=?-~])*+)?",
    regex.I,
)
_TOP_LEVEL = frozenset(
    [
        *(
            "com",
            "net",
            "org",
            "io",
            "gg",
            "tv",
            "co",
            "me",
            "ly",
            "app",
            "dev",
            "pro",
            "info",
            "biz",
            "xyz",
            "top",
            "shop",
        ),
        *("site", "online", "store", "club", "live", "link", "click", "zip", "mov", "to", "cc", "ws", "eu", "gl", "gd"),
        *(
            "su",
            "ai",
            "vip",
            "fun",
            "icu",
            "page",
            "gay",
            "tech",
            "cloud",
            "space",
            "art",
            "blog",
            "news",
            "games",
            "game",
        ),
        *(
            "stream",
            "video",
            "chat",
            "social",
            "world",
            "life",
            "today",
            "best",
            "buzz",
            "bet",
            "win",
            "cash",
            "casino",
        ),
        *(
            "sex",
            "porn",
            "xxx",
            "ru",
            "cn",
            "de",
            "uk",
            "fr",
            "es",
            "it",
            "nl",
            "pl",
            "br",
            "jp",
            "in",
            "ca",
            "au",
            "be",
        ),
        *("us", "kr", "tw", "hk", "sg", "id", "vn", "th", "tr", "ua", "by", "kz", "cz", "sk", "hu", "ro", "bg", "gr"),
        *(
            "pt",
            "se",
            "no",
            "dk",
            "fi",
            "ch",
            "at",
            "ie",
            "nz",
            "za",
            "mx",
            "ar",
            "cl",
            "pe",
            "рф",
            "укр",
            "бел",
            "сайт",
        ),
    ]
)
_TRAILING = ".,;:!?)*_'\"]}"
_HOST = regex.compile(r"(?:[a-z][a-z0-9+.\-]*://)?([^/?#]*)", regex.I)
_HOST_NAME = regex.compile(r"[\p{L}\p{N}.\-]+(?::\d{1,5})?")
_SPACES = regex.compile(r"\s+")
_LINES = regex.compile(r"[ \t]*\n(?:[ \t]*\n)+")
_SENTENCE = regex.compile(r"[.!?…؟۔।][\"”»)\]]*(?=\s|$)|[。！？][」』）]*")
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

    @functools.cached_property
    def called(self) -> set[str]:
        """Whom it may call, in lower case."""
        return {name.casefold().lstrip("@") for name in self.names if name}

    @property
    def limit(self) -> int:
        """Longest message, the prefix included, in the platform's own units."""
        return LIMITS.get(self.platform, DEFAULT_LIMIT)


def fit(text: str, manner: Manner) -> str:
    """The text to go after the prefix: safe, and so short that both fit; may be empty. What fits already stays."""
    text = text[:MOST_CHARACTERS]
    # What is taken out can leave something together that must go as well.
    for _ in range(MOST_ROUNDS):
        before, text = text, _shorten(_clean(text, manner), manner)
        if _repeats(text, manner.system):
            return ""
        if text == before:
            return text
    return ""


def reworded(text: str, name: str, manner: Manner) -> Iterator[str]:
    """The same in other words, as far as that can be done without a model."""
    for before, after in FRAMES:
        other = f"{before}{text}{after}".replace("{name}", name)
        if (fitting := fit(other, manner)) and fitting != text:
            yield fitting


def fit_prefix(prefix: str) -> str:
    """What is put before every reply, without what would make a command or a second line of it."""
    return _without_signs(_SPACES.sub(" ", _UNSEEN.sub("", prefix)))


def rules_applied(text: str, manner: Manner) -> list[str]:
    """Which rules change a text on its way out, each by a few words, in their order."""
    found = []
    for what, rule in (*_RULES, ("cut to the platform's length", _shorten)):
        before, text = text, rule(text, manner)
        if text.strip() != before.strip():
            found.append(what)
    if _repeats(text, manner.system):
        found.append("repeats what the model was told: left out")
    return found


def _clean(text: str, manner: Manner) -> str:
    for _, rule in _RULES:
        text = rule(text, manner)
    return text


def _visible(text: str, _manner: Manner) -> str:
    return _UNSEEN.sub("", _BREAKS.sub("\n", text))


def _in_lines(text: str, manner: Manner) -> str:
    """As the platform shows lines and Markdown."""
    if manner.platform in ONE_LINE:
        return _SPACES.sub(" ", _without_markup(text))
    text = _LINES.sub("\n\n", text)
    return _SLACK_BOLD.sub(r"*\1*", text) if manner.platform == "slack" else text


def _without_artefacts(text: str, _manner: Manner) -> str:
    text = without_tokens(_THOUGHT.sub("", text))
    text = _AS_AN_AI.sub("", _LABEL.sub("", text)).strip()
    while len(text) > 1 and text[-1] == _QUOTES.get(text[0]) and text.count(text[0]) <= 2 and text.count(text[-1]) <= 2:
        text = text[1:-1].strip()
    return text


def _without_forms(text: str, manner: Manner) -> str:
    def labelled(found: regex.Match[str]) -> str:
        label = found[2] or ""
        return f"{label} {found[1]}".strip() if _allowed(found[1], manner.links) else label

    def hidden(found: regex.Match[str]) -> str:
        if not any(sign in found[2] for sign in ".:/"):
            return found[0].replace("](", "] (")
        return f"{found[1]} {found[2]}" if _allowed(found[2], manner.links) else str(found[1])

    text = _OPENED.sub("", _FORMS.sub("", _LABELLED.sub(labelled, text)))
    return _HIDDEN.sub(hidden, _IMAGE.sub(r"\1", text)).replace("](", "] (")


def _without_calls(text: str, manner: Manner) -> str:
    """Nobody is called but who is addressed."""
    names = manner.called

    def call(found: regex.Match[str]) -> str:
        name = found[1].casefold()
        return str(found[0]) if found[0] == "@" and not names.isdisjoint({name, name.rstrip(".-")}) else ""

    return _AT.sub(call, _EVERYONE.sub("", text))


def _without_links(text: str, manner: Manner) -> str:
    links, names = manner.links, manner.called

    def judge(found: regex.Match[str]) -> str:
        address = found[0].rstrip(_TRAILING)
        return str(found[0]) if _allowed(address, links) else found[0][len(address) :]

    def bare(found: regex.Match[str]) -> str:
        address = found[0].rstrip(_TRAILING)
        if address.casefold() in names or not _leads(found[1], found[2], found[3]) or _allowed(address, links):
            return str(found[0])
        return str(found[0][len(address) :])

    text = _DATA.sub("", _SCRIPTS.sub(r"\1", text))
    text = _LINK.sub(judge, text)
    return _BARE.sub(bare, _LOCAL_PART.sub("", text))


def _leads(labels: str, top: str, path: str | None) -> bool:
    """Whether a platform would make a link of it; `close.To be` is a sentence without its space."""
    if path and path[:1] == "/" and len(labels) > 2:
        return True
    if top.casefold() not in _TOP_LEVEL or labels.replace(".", "").isdigit():
        return False
    return not (top[0].isupper() and top[1:].islower() and labels[0].islower())


def _allowed(address: str, links: Sequence[str]) -> bool:
    """Whether an address leads to one of these hosts, or to a part of one, by http."""
    scheme, separator, _ = address.partition("://")
    if separator and scheme.lower() not in {"http", "https"}:
        return False
    found = _HOST.match(address)
    authority = found[1] if found else ""
    if not _HOST_NAME.fullmatch(authority):
        return False
    host = authority.partition(":")[0].casefold().rstrip(".")
    return any(host == link or host.endswith("." + link) for link in links if link)


def _without_markup(text: str) -> str:
    text = _LINE_SIGNS.sub("", text)
    return _MARKUP.sub(lambda found: next(part for part in found.groups() if part is not None), text)


def _not_a_command(text: str, _manner: Manner) -> str:
    return _without_signs(text.strip())


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


_RULES: tuple[tuple[str, Callable[[str, Manner], str]], ...] = (
    ("unseen signs left out", _visible),
    ("what models add left out", _without_artefacts),
    ("platform forms, labels and images left out", _without_forms),
    ("links left out", _without_links),
    ("calls of others left out", _without_calls),
    ("Markdown and lines as the platform shows them", _in_lines),
    ("the signs of a command left out", _not_a_command),
)


def _repeats(text: str, system: str) -> bool:
    """Whether a text has much of what the model was told in it."""
    size, told = _told(system)
    if not told:
        return False
    letters = _letters(text)
    return any(letters[at : at + size] in told for at in range(len(letters) - size + 1))


@functools.lru_cache(maxsize=1_000)
def _told(system: str) -> tuple[int, frozenset[str]]:
    """How many letters in a row are an echo, and all such rows."""
    letters = _letters(system)
    size = min(max(int(len(letters) * ECHO_SHARE), LEAST_ECHO), ECHO_LETTERS)
    return size, frozenset(letters[at : at + size] for at in range(len(letters) - size + 1))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, fold(text)))


def _shorten(text: str, manner: Manner) -> str:
    """Short enough together with the prefix: cut after a sentence if half of it stays, else after a word."""
    room = manner.limit - _length(manner.prefix, manner)
    if _length(text, manner) <= room:
        return text
    kept = head(text, room - 1, lambda part: _length(part, manner))
    ends = [found.end() for found in _SENTENCE.finditer(text) if found.end() <= len(kept)]
    if ends and ends[-1] * 2 >= len(kept):
        return kept[: ends[-1]]
    word = kept.rfind(" ")
    cut = (kept[:word] if word * 2 >= len(kept) else kept).rstrip(" ,;:")
    return cut + ELLIPSIS if cut else ""


def _length(text: str, manner: Manner) -> int:
    """In code points, or as Discord counts in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2 if manner.platform == "discord" else len(text)


def manner_of(event: ChatEvent, settings: CommunitySettings) -> Manner:
    """How a reply to an event is to look in a community."""
    names = (event.username, event.display_name or "")
    links = tuple(link.casefold() for link in settings.allowed_links)
    return Manner(event.platform, fit_prefix(settings.response_prefix), names, links, settings.system_prompt)
