"""Reads chat: whether a message greets, says goodbye or asks something that wants an answer; and why not.

Rules for messages of a line or two, made by reading real chat of Twitch, YouTube and IRC. When in doubt it is nothing:
who speaks when nobody asked is muted, who stays silent is forgiven. Texts are in Unicode form NFKC and case-folded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LONGEST = 400  # characters that are looked at
MAX_UNSPACED = 40
_GOES_INTO_WORD = re.compile(r"_|-\w")
_REPEATED = re.compile(r"([^\W\d_])\1+")
# Addresses, and emotes as platforms write them: Kick's, Discord's, YouTube's.
_NOISE = re.compile(
    r"\S+://\S+|\[emote:\d{1,20}:[^\]\s]{0,60}\]|<a?:\w{1,60}:\d{1,25}>|:[\w+-]{2,40}:"
    r"|[\u200b-\u200f\u2060\ufe0f\U000e0000-\U000e007f]"
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_AT = re.compile(r"@[\w-]+")
_TO_SOMEONE = re.compile(r"\s*@?([\w-]{2,30})\s?([:,])\s+\S")
_SPACED = re.compile(r"[a-z\u00c0-\u024f\u0370-\u052f]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_FILLERS = _set(
    "oh ah well ok okay so and but wait lol um uh erm hmm yo ayo hey hi hello guys chat bro bruh brother "
    "dude man pls plz "
    "please also sorry excuse me question quick btw now damn wow aww aw true yeah yes no nah y'all yall everyone all "
    "folks people actually honestly literally like just anyway pues oye bueno aber also ey ay"
)
_AUDIENCE = _set(
    "all chat everyone everybody guys folks people friends y'all yall ya'll team gang fam family there again from "
    "streamer mods mod bro brother dude man ladies gents gentlemen peeps i i'm im i've ive my to how hows how's here "
    "just back happy nice and a tout tous todos todas amigos gente alle zusammen leute tutti everyone's "
    "good today tonight"
)
# After "hey", "oi" or "yo" these make it a cry, not a greeting.
_CRIES = _set(
    "that that's thats this this's no not what why stop don't dont you it it's its he she they wtf shut hey oi"
)
_OPEN = _set(
    "what whats what's which when whens when's where wheres where's who whos who's whose how hows how's why whys "
    "how'd what'd where'd who'd why'd what're qué que quien quién como cómo cuando cuándo donde dónde "
    "cuál cual cuanto cuánto por "
    "qual quando onde quem quanto quel quelle quels quelles quand où pourquoi combien wie wann warum welche welcher "
    "welches wieso dove perché "
    "что как когда где кто почему зачем какой какая сколько"
)
# Of other languages, where there is a question mark.
_OPEN_MARKED = _set(
    "wo woher wohin wer comment qui quoi kannst hast bist spielst gibt's gibt tienes puedes puedo hay eres cuántos "
    "cuántas quantos quantas tem você alguém alguien c'est dónde donde onde qué cómo qual quanto quando"
)
_AUXILIARY = _set(
    "is are was were am do does dose did can could will would should shall has have had isn't aren't "
    "don't doesn't didn't "
    "can't couldn't won't wouldn't shouldn't haven't hasn't ist sind kann können hast hat est"
)
_SUBJECT = _set(
    "i you u ya we they he she it this that these those there the a an any anyone anybody someone "
    "somebody everyone y'all "
    "your his her my our their"
)
_COMMON = _FILLERS | _AUDIENCE | _OPEN | _AUXILIARY | {"o7"}
# What asks, wherever it stands.
_ASKING = re.compile(
    r"\b(?:(?:any|some)(?:one|body) (?:know|knows|remember|remembers|tried|explain|tell|help)"
    r"|(?:want|wan't|like|love|wanted) to know|(?:wanna|have a) (?:know|ask|question)"
    r"|any (?:idea|ideas|clue|way|chance|tips|recommendations)|is it possible|is there (?:a|an|any)"
    r"|(?:can|could) (?:some|any)(?:one|body)|(?:i|we) (?:need|want) (?:some )?help|i (?:wanna|want to|wanted to) ask"
    r"|do(?:es|se)? any(?:one|body)|have (?:you|u) (?:ever|tried|seen)|how (?:do|can|to|would|should) (?:i|we|one)"
    r"|alguien sabe|alguém sabe|weiß jemand|quelqu'un sait|qualcuno sa)\b"
)
# Scorn, cries and tags in the form of questions.
_RHETORICAL = re.compile(
    r"\b(?:who (?:asked|cares|tf|does that|\w+ing)|how (?:dare|is (?:he|she|this|that|it|bro) so|does bro|tf)"
    r"|why (?:(?:are|is|r) )?(?:you|u|he|she|they|bro|it|this|that|everyone|we)\b"
    r"|why (?:does|did|would) (?:he|she|they|bro|it|this)\b"
    r"|what (?:the|da) |wtf|wth|tf\b"
    r"|what(?:'s|s| is) (?:wrong|up) with|how(?:'s| is| can| does) (?:he|she|they|bro)\b"
    r"|(?:are|r) (?:you|u|we) (?:serious|kidding|ok|okay|dumb|blind|for real|fr)\b"
    r"|(?:is|are) (?:bro|blud|he|she|they) (?:ok|okay|serious|stupid|dumb|cooked|trolling|just|really)\b"
    r"|what an?\b|you know what|(?:what|wdym)(?: do| did)? (?:you|u) mean|supposed to mean|why is \w+ so"
    r"|how (?:can|could|are|do|did) (?:you|u|he|she|they|bro|we) (?:\w+ )?(?:so|not|even|still)|still not|notice how"
    r"|guess what|so what|no matter|what if|how about that|is we\b|tho+\b)"
    r"|\b(?:is|are|do|does|did|was|have|has)n't (?:it|he|she|they|you|u|that)\W*$|\b(?:right|huh|eh|lol|no)\W*$"
)
_SCORN = re.compile(r"\b(?:w?tf+|wth|lmf*a+o+)\b")
_SWEARING = re.compile(
    r"\b(?:f+u+c*k+\w*|shit\w*|bitch\w*|nigg\w*|ass|damn|hell|dumb\w*|stupid\w*|sped|rage|bro|blud|gang)\b"
)
# Japanese, Chinese, Korean: what asks for something; what asks unless it only wonders, exclaims or teases; and that.
_ASKS_CJK = re.compile(
    r"[^\s?!、。]{2}(?<!これ)(?<!それ)(?<!あれ)(?<!で)(?<!とき)(?<!こと)は[…、。・.~〜\s]*[?!]*\?[?!]*(?!.*\?{7})"
    r"|(?<!ん)まだ(?:です|なん|なの)?か?ね?[!]*\?|(?:どこ|いつ(?!の間)|何時|いくら|なんの|何の|どう(?:すれば|やって|いう|なる|なって|なん))[^?]{0,40}\?"
    r"|は(?:何|なに|誰|だれ|どこ|いつ)(?:です)?か?\?|(?:ある|強化|出る)か\?|(?<!まだ)ある\?"
    r"|吗[?!]*$|[么呢]\?+$|怎么|什么时候|为什么|哪里|(?:뭐|언제|어디|어떻게|누구|얼마)[^?]{0,40}\?"
)
_MAY_ASK_CJK = re.compile(
    r"(?:です|ます|でしょう|ません)か[?!。]*$|(?:ほんま|本当)(?:なん|ですか|なの)?\?"
    r"|(?:もう|見え|って|て)[^?]{0,40}(?:ある|ない|出た|なに|や[〜~]?つ)(?:よね|の|よな)?\?|[까요]\?$"
)
_WONDERS_CJK = re.compile(
    r"(?:だけ|かな[ぁあ]?|終わり|おわり|終わった|じゃない[か]?|じゃね|ちゃう|くね|すぎん|マジ|まじ|嘘|なん[でや]|んか|のか|なのか|よね)[ーw笑。…\s]*[?!]"
    r"|^(?:え|は|お|ん|あ|ファ|ふぁ|うぉ)[ーっぁあ…、]*[?!]|![?]|[?]!|\?{7,}|w+$|笑"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Reading:
    """What a message is, by the words that make it so; or `why` it is nothing although it seemed to be something."""

    kind: str | None
    match: str = ""
    why: str = ""


NOTHING = Reading(None, why="nothing in it asks for an answer")


@dataclass(frozen=True)
class Line:
    """A folded message, taken apart once: `spans` are where its words stand in `text`."""

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    to_someone: bool  # it is addressed to another user
    spaced: bool  # its script puts spaces between words

    @property
    def asks(self) -> bool:
        return "?" in self.text


def take_apart(folded: str, own_name: str = "") -> Line:
    """`own_name` is what the co-host is called, folded."""
    text = _NOISE.sub(" ", folded[:LONGEST]).replace("’", "'")
    to_someone, text = _address(text, own_name)
    found = list(_WORD.finditer(text))
    words, spans = tuple(each[0] for each in found), tuple(each.span() for each in found)
    return Line(text, words, spans, to_someone, not _CJK.search(text))


class Phrases:
    """Finds words and phrases in a line, drawn out (`heyyy`) as well as spelt; in scripts without spaces anywhere."""

    def __init__(self, words: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._unspaced = []
        for word in words:
            folded = unicodedata.normalize("NFKC", word).casefold()
            if not _SPACED.search(folded):
                self._unspaced.append((folded, word))
                continue
            first, *rest = (_squeeze(part) for part in folded.split())
            self._by_first.setdefault(first, []).append(((first, *rest), word))

    def find(self, line: Line) -> Iterator[Place]:
        """Each place where one of them stands."""
        squeezed = [_squeeze(word) for word in line.words]
        for at, first in enumerate(squeezed):
            start = line.spans[at][0]
            sign = line.text[start - 1] if start else " "
            if sign in "!_" and ("!" + first not in self._by_first or line.text[start - 2 : start - 1] in {"!", "_"}):
                continue
            for phrase, word in self._by_first.get("!" + first if sign == "!" else first, ()):
                end = at + len(phrase)
                if len(phrase) == 1 or tuple(squeezed[at:end]) == phrase:
                    if not _GOES_INTO_WORD.match(line.text, line.spans[end - 1][1]):
                        yield Place(word, at, end)
                    break
        if not line.text.isascii():
            for folded, word in self._unspaced:
                if folded in line.text:
                    yield Place(word, 0, len(line.words))


def _squeeze(word: str) -> str:
    """Without letters that are drawn out."""
    return _REPEATED.sub(r"\1", word)


@dataclass(frozen=True)
class Place:
    """Where a word or phrase stands in a line: from the word `start` to before the word `end`."""

    word: str
    start: int
    end: int


def _address(text: str, own_name: str) -> tuple[bool, str]:
    """Whether a text is addressed to another user, and the text without that."""
    if "@" in text:
        names = _AT.findall(text)
        return any(name[1:] != own_name for name in names), _AT.sub(" ", text)
    found = _TO_SOMEONE.match(text)
    if found is None or found[1] == own_name or found[1] in _COMMON:
        return False, text
    name, sign = found[1], found[2]
    return (True, text[found.end(2) :]) if sign == ":" or not name.isalpha() else (False, text)


def question(line: Line) -> Reading:
    """Whether it asks something that a friendly host would answer. For a line with words."""
    if line.to_someone:
        return Reading(None, why="it is addressed to another user")
    if not line.spaced:
        return _question_without_spaces(line)
    found = _ASKING.search(line.text) if len(line.words) > 1 else None
    if found and not _SCORN.search(line.text):
        return Reading("question", "?" if line.asks else found[0].strip())
    phrase = next((phrase for words in _sentences(line) if (phrase := _phrase(words, line.asks))), None) or _brief(line)
    if phrase is None:
        return Reading(None, why="it has a question mark, but not the form of a question") if line.asks else NOTHING
    if any(signs.search(line.text) for signs in (_RHETORICAL, _SWEARING, _LAUGHTER)):
        return Reading(None, why="it asks in form only")
    return Reading("question", "?" if line.asks else phrase)


def _sentences(line: Line) -> Iterator[tuple[str, ...]]:
    """The words of each."""
    begin = 0
    for at in range(1, len(line.words)):
        between = line.text[line.spans[at - 1][1] : line.spans[at][0]]
        if any(sign in between for sign in ".!?,;:-("):
            yield line.words[begin:at]
            begin = at
    yield line.words[begin:]


def _phrase(words: tuple[str, ...], asks: bool) -> str | None:
    """The words that make a question of a sentence; without a question mark fewer do."""
    start = 0
    while start < len(words) - 1 and words[start] in _FILLERS:
        start += 1
    if asks and words[start] in _ANYONE:
        return words[start]
    if asks and len(words) > 1 and (found := next((word for word in words[:2] if word in _OPEN_MARKED), None)):
        return found
    for at in (start, start + 1):
        if len(words) - at < 3 or (at > start and words[start] in _NO_NAMES):
            break
        word, after, third = words[at : at + 3]
        if word in _OPEN and (asks or _asks_unmarked(word, words[at + 1 :], first=at == start)):
            return f"{word} {after}"
        if word in _AUXILIARY and after in _SUBJECT and (asks or (at == start and _is_told(word, after, third))):
            return f"{word} {after}"
    return None


def _brief(line: Line) -> str | None:
    """Two words that ask calmly: `what now?`, and not `what??`."""
    words, text = line.words, line.text
    calm = len(words) == 2 and text.count("?") == 1 and "!" not in text
    return " ".join(words) if calm and words[0] in _OPEN else None


def _asks_unmarked(word: str, rest: tuple[str, ...], *, first: bool) -> bool:
    """Whether what follows a question word makes a question of it, where there is no mark."""
    if word in _CONTRACTED or rest[0] in _AUXILIARY or (word == "how" and rest[0] == "to" and first):
        return True
    if word == "when" or not first:
        return word == "when" and first and rest[0] in {"u", "we"} and len(rest) < 5
    return any(each in _AUXILIARY or each in _ASKED for each in rest[:3])


def _is_told(auxiliary: str, subject: str, third: str) -> bool:
    """Whether an unmarked sentence that begins as a question does asks for something, and is no cry or wish."""
    if subject in {"a", "an", "the"}:
        return auxiliary not in {"have", "has", "do", "does", "is", "was", "were"}
    return subject not in {"this", "that", "it", "he", "she"} or third in {"a", "an", "the", "possible"}


_CONTRACTED = _set(
    "whats what's whens when's wheres where's whos who's hows how's how'd what'd where'd who'd why'd what're"
)
_ANYONE = _set("anyone anybody someone somebody any")
# What begins a sentence and is not the name of whom it is addressed to.
_NO_NAMES = _set("that's thats that this it its notice means mean know knows is i we you he she they look watch see")
_ASKED = _set("u you they we i")


def _question_without_spaces(line: Line) -> Reading:
    asks = _ASKS_CJK.search(line.text)
    if not asks and not _MAY_ASK_CJK.search(line.text):
        return Reading(None, why="it has a question mark, but asks nothing") if line.asks else NOTHING
    if not asks and _WONDERS_CJK.search(line.text):
        return Reading(None, why="it only wonders")
    return Reading("question", "?" if line.asks else "か")


_BOUNDARY = re.compile(r"[.!?…,;][^\w]*$")
_LAUGHTER = re.compile(r"\b(?:l+m+f*a+o+\w*|l+o+l+\w*|ha(?:ha)+\w*|kek\w*|lul\w*|omeg\w*|xd+)\b|[😭💀😂🤣]")
_QUOTED = _set("say says said saying tell tells told like called named song means mean")
_OTHERS = _set("he she they you u we it who bro that this him her them")
_CLOSING = re.compile(r"[\s]*[,.!~…:;)\-(]")
_LATE = _set("later")
_MYSELF = _set("i im i'm ive i've my")
_NOT_DRAWN_OUT = _set("oi")


def greeting(line: Line, place: Place) -> Reading:
    """Whether a greeting word, which stands there, greets."""
    return _read("greeting", place, _no_greeting(line, place))


def _no_greeting(line: Line, place: Place) -> str:
    if not _SPACED.search(place.word):
        return "" if len(line.text) <= MAX_UNSPACED else "the greeting is part of a longer text"
    before, after = line.words[: place.start], line.words[place.end :]
    follows = after[0] if after else ""
    led_to = len(before) <= 2 and all(each in _FILLERS for each in before)
    drawn_out = place.word in _NOT_DRAWN_OUT and line.words[place.start] != place.word
    free = len(after) <= (5 if not before else 2) or follows in _AUDIENCE or after[1] in _MYSELF or _closes(line, place)
    return _first(
        (drawn_out or follows in _CRIES, "it is a cry and no greeting"),
        (bool(before) and before[-1] in _QUOTED, "the greeting is quoted"),
        (bool(before) and not led_to and not _begins(line, place), "the greeting is in the middle of a sentence"),
        (line.to_someone and len(after) > 2, "it is addressed to another user"),
        (not free, "the sentence goes on otherwise than a greeting"),
    )


def _read(kind: str, place: Place, why: str) -> Reading:
    return Reading(None, why=why) if why else Reading(kind, place.word)


def _first(*reasons: tuple[bool, str]) -> str:
    """The first reason that holds."""
    return next((why for holds, why in reasons if holds), "")


def farewell(line: Line, place: Place) -> Reading:
    """Whether a farewell word, which stands there, takes leave."""
    return _read("farewell", place, _no_farewell(line, place))


def _no_farewell(line: Line, place: Place) -> str:
    if not _SPACED.search(place.word):
        return "" if len(line.text) <= MAX_UNSPACED else "the farewell is part of a longer text"
    before, after = line.words[: place.start], line.words[place.end :]
    if place.word.startswith("!"):
        return "" if all(each in _FILLERS for each in before) else "the command is in the middle of a sentence"
    if place.word in _LATE:
        return _no_late(before, after)
    follows = after[0] if after else ""
    long = len(before) > 8 or (len(after) > 4 and not _closes(line, place) and follows not in _AUDIENCE)
    return _first(
        (bool(before) and before[-1] in _OTHERS | _QUOTED, "it is about someone else"),
        (line.asks or bool(_LAUGHTER.search(line.text)), "it is a joke or a question"),
        (long, "the farewell is part of a longer text"),
        (follows in _GOES_ON, "the sentence goes on otherwise than a farewell"),
    )


_GOES_ON = _set("is was to the that this in on of")


def _no_late(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """Words that are more often an adverb or a time of day."""
    alone = len(before) <= 2 and all(each in _FILLERS or each in {"see", "catch", "talk"} for each in before)
    return "" if alone and len(after) <= 2 and (not after or after[0] in _AUDIENCE) else "it tells of a time"


def _begins(line: Line, place: Place) -> bool:
    """Whether a sentence begins there."""
    return bool(_BOUNDARY.search(line.text[: line.spans[place.start][0]]))


def _closes(line: Line, place: Place) -> bool:
    """Whether a sign follows that ends a greeting."""
    return bool(_CLOSING.match(line.text, line.spans[place.end - 1][1]))
