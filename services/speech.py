"""Reads chat: whether a message greets, says goodbye or asks something that wants an answer; and why not.

Rules for messages of a line or two, made by reading real chat of Twitch, YouTube and IRC. When in doubt it is nothing:
who speaks when nobody asked is muted, who stays silent is forgiven. Texts are in Unicode form NFKC and case-folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.texts import fold

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
    "folks actually honestly literally like just anyway pues oye bueno aber also ey ay"
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
    "wat wats wut wen what whats what's which when whens when's where wheres where's who whos who's "
    "whose how hows how's why whys "
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
    "r isnt arent wasnt didnt doesnt dont cant couldnt wont wouldnt shouldnt "
    "can't couldn't won't wouldn't shouldn't haven't hasn't ist sind kann können hast hat est"
)
_SUBJECT = _set(
    "i you u ya we they he she it this that these those there the a an any anyone anybody someone "
    "somebody everyone y'all "
    "your ur his her my our their bro blud chat dis dat people"
)
_COMMON = _FILLERS | _AUDIENCE | _OPEN | _AUXILIARY | {"o7"}
# What asks, wherever it stands.
_ASKING = re.compile(
    r"\b(?:(?:any|some)(?:one|body) (?:know|knows|remember|remembers|tried|explain|tell|help)"
    r"|(?:want|wan't|like|love|wanted) to know|wanna (?:know|ask)"
    r"|(?<!if )(?<!in )(?<!'s )(?<!out )any (?:idea|ideas|clue|way|chance|tips|recommendations)"
    r"|is it possible|is there (?:a|an|any)"
    r"|(?:can|could) (?:some|any)(?:one|body)|(?:i|we) (?:need|want) (?:some )?help|i (?:wanna|want to|wanted to) ask"
    r"|do(?:es|se)? any(?:one|body)|have (?:you|u) (?:ever|tried|seen)|how (?:do|can|to|would|should) (?:i|we|one)"
    r"|how to fix|(?<!if )(?:can|could|would|will) (?:you|u|y'?all) (?:guys )?(?:please |pls )?\w{2,}"
    r"|do (?:you|u|y'?all) (?:guys )?(?:know|have|think|like|play|want|need|ever|still|even|recommend)"
    r"|(?:are|r) (?:you|u|y'?all) (?:guys )?(?:gonna|going|coming|playing|doing|live|still|from|finna|planning)"
    r"|alguien sabe|alguém sabe|weiß jemand|quelqu'un sait|qualcuno sa)\b"
)
# Set phrases that are cries, scorn or taunts in the form of questions; whole sentences.
_CRY = re.compile(
    r"(?:(?:wait|bro|bruh|yo|nah|na|oh|but|and|so|like|omg) )*(?:"
    r"wh?a+t+|wh?u+t|wait|huh+|who|how|why+|really+|rly|fr|for real|real|no way|no|yes|yeah|say what|ok"
    r"|okay|right|w?tf+|wth|wdf"
    r"|(?:what|who|why|how|where) (?:the|da|tha) (?:actual )?(?:f\w*|hell|heck|actual f\w*|ft)"
    r"(?: (?:is|was|just|are) (?:that|this|it|happening|going on|happened|you doing))*"
    r"|(?:what|wh?o) tf|wtf (?:is|was) (?:that|this|it|happening|going on)\w*|(?:fuck|f|hell) (?:is|was) (?:that|this)"
    r"|who (?:asked|cares|not|is we|let \w+ cook)|(?:are|r) (?:you|u) (?:serious|kidding|kidding me"
    r"|for real|fr|sped|dumb|stupid|blind)"
    r"|you (?:good|ok|okay|serious|kidding|sure)|is (?:bro|blud|he|she|this guy) (?:ok|okay|serious"
    r"|stupid|dumb|cooked|trolling|real|fr)"
    r"|how (?:is that|is this|does that) even possible|what is wrong with|got it|so what|guess what|you know what"
    r"|what (?:a|an)\b.*|what are you is .*|why (?:are|r) (?:you|u) like this)"
    r"(?: (?:bro|bruh|man|dude|lol|lmao|gang|though|tho|mean))*"
)
# Sentences that tell of a question, or go on from one.
_TOLD = re.compile(
    r"^(?:it means|that means|notice|look|see|watch|imagine|remember|say|says|said"
    r"|i (?:like|love|hate|know|see|wonder|guess|think|thought)|idk|dunno|that's|thats|this is)\b"
)
_MANY_MARKS = re.compile(r"\?{9}")
_SMALL_TALK = re.compile(
    r"\W*(?:hi+|hello+|hey+|heya|yo|hola|hallo)\b(?:[ ,!]+\w+){0,3}?[ ,!.]+"
    r"(?:how (?:are|r) (?:you|u|ya|y'all|yall)(?: (?:doing|all|today|guys))*|how's it going|hows it going"
    r"|what's up|whats up)\W*"
)
_LOOKS_BACK = re.compile(
    r"\b(?:he|she|they|him|her|them|everyone|everybody|someone|somebody|anyone|chat|people|guys|y'all"
    r"|yall|dude|that guy)\b"
    r".{0,60}\b(?:sa(?:y|id|ys|ying)|mean(?:s|t)?|ask(?:s|ed|ing)?|talk(?:s|ed|ing)?|wrote|writ\w+|tell"
    r"|told|suggest\w*|laugh\w*)\b"
    r"|\bdid (?!i\b|you\b|u\b|we\b)@?[\w-]+ (?:just )?(?:say|mean|ask|write|tell|suggest)\b"
    r"|\b(?:what|did i|have i|i|just) (?:just )?(?:miss|missed|happened)\b"
    r"|\b(?:catch me up|recap"
    r"|sum(?:med)? up|tl;?dr|going on|happening)\b"
    r"|\bwho (?:just )?(?:said|asked|wrote|told)\b"
    r"|(?:さっき|今).{0,12}(?:言|話|誰)|(?:何|なん)て(?:言|い)|何の話|なんの話",
)
# Japanese, Chinese, Korean: what a sentence ends with that asks; that only wonders; and whole ones that are cries.
_CJK_SENTENCE = re.compile(r"([^?!。、.・\s]+)[.・。、~〜ーw笑^)」】\s]*([?!]*)")
_ASKS_CJK = re.compile(
    r"(?:です|ます|でしょう|ません)か[ね]?$|(?:のか|んか|よね|よな|あるの|るの|たの|んの|ないの)$|吗$|[么呢]$|怎么|什么时候|为什么|哪里"
    r"|^(?:何で|なんで|なぜ|どう(?!で|せ)|どこ|いつ(?!も|から)|誰が|だれが|いくら)|.{2}(?<!これ)(?<!それ)(?<!あれ)(?<!で)(?<!とき)(?<!こと)は$"
    r"|(?:뭐|언제|어디|어떻게|누구|얼마)|[까요니]$"
)
_ASKS_CJK_UNMARKED = re.compile(
    r"(?:です|ます|でしょう|ません)か[ね。]*$|^何で.{4,}(?:にした|なの|のか|んだ|んですか)$|[ァ-ヶー一-龥]{3}は$|吗$|[까요니]$"
)
_WONDERS_CJK = re.compile(
    r"(?:かな[ぁあー]*|じゃないか|のでは|だろうか|のだろう|やで|だが|ぞ|だって|よ|ぜ|(?<!よ)な|んだが)$"
)
_CRIES_CJK = re.compile(
    r"(?:え|は|お|ん|あ|う|へ|ファ|ふぁ|うぉ|おっ|おん|ほん)[ーっぁあぇえぉおんア-ン]*|(?:それ|これ|あれ|コレ)?だけ(?<!れだけ)(?<!レだけ)|それだけ"
    r"|(?:なに|何|なん)(?:これ|それ|だ|だこれ|言ってんの|やってんの|やってる)?|だれ|誰|誰が得|ま[じぢ]か?|マジ(?:か|で|で言ってる)?|嘘(?:ですよね)?|うそ|ほんと.?|本当"
    r"|終わり|おわり|以上|最後|そして|はい|いる|きた|あれ|ゴミ|告知|期待|今更|どういうこと|だと|(?:まだ)?わからん|そうなの.?|カルシウム.*"
)
_ONE_NOUN_CJK = re.compile(
    r"(?:[ァ-ヶー・]+|[一-龥々]+|[ァ-ヶー]+[一-龥々]{1,2}|[一-龥々]{1,2}[ァ-ヶー]+)(?:さん|か|村|ちゃん)?|[ぁ-んー]{1,6}"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# What asks also where an exclamation mark stands beside the question mark.
_TELLS_CJK = re.compile(r"(?:とか|って|と言|という)")
_NOUN_CJK = re.compile(r"[^のはがをにでともか]{0,7}[ァ-ヶー一-龥々]")
_FIRM_CJK = re.compile(r".{3}(?:るのか|よね|ですか|ますか|るの|くね|じゃね)$|.{2}[ァ-ヶー一-龥々](?:たち)?は$")
LEAST_CJK = 4
REPEATED_CJK = 3


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
            folded = fold(word)
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
    """Whether it asks something, of everyone or of nobody in particular. For a line with words."""
    if why := _first(
        (line.to_someone, "it is addressed to another user"),
        (bool(_MANY_MARKS.search(line.text)), "its question marks are a cry"),
        (bool(_SMALL_TALK.fullmatch(line.text)), "it is small talk with a greeting"),
    ):
        return Reading(None, why=why)
    if not line.spaced:
        return _question_without_spaces(line)
    found = _ASKING.search(line.text) if len(line.words) > 1 else None
    if found:
        return Reading("question", "?" if line.asks else found[0].strip())
    phrase = next((phrase for sentence in _sentences(line) if (phrase := _phrase(*sentence))), None)
    if phrase:
        return Reading("question", "?" if line.asks else phrase)
    return Reading(None, why="it has a question mark, but asks nothing") if line.asks else NOTHING


def looks_back(text: str) -> bool:
    """Whether a message is about what others said in the chat of late: `what did he just say`."""
    return bool(_LOOKS_BACK.search(fold(text[:LONGEST]).replace("’", "'")))


def _sentences(line: Line) -> Iterator[tuple[tuple[str, ...], bool, int]]:
    """The words of each, whether it ends with a question mark, and how many words come after it."""
    begin, total = 0, len(line.words)
    for at in range(1, total):
        between = line.text[line.spans[at - 1][1] : line.spans[at][0]]
        if any(sign in between for sign in ".!?,;:-("):
            yield line.words[begin:at], "?" in between, total - at
            begin = at
    if begin < total:
        yield line.words[begin:], "?" in line.text[line.spans[-1][1] :], 0


def _phrase(words: tuple[str, ...], asks: bool, follow: int) -> str | None:
    """The words that make a question of a sentence; without a question mark fewer do."""
    start = 0
    while start < len(words) - 1 and words[start] in _FILLERS:
        start += 1
    words = words[start:]
    said = " ".join(words)
    if _CRY.fullmatch(said) or _TOLD.match(said):
        return None
    if phrase := _form(words, asks):
        return phrase
    if not asks:
        return None
    if len(words) > 1 and (found := next(filter(_MAY_OPEN.__contains__, words[:2]), None)):
        return found
    # What only names something asks of it, unless that is one word, or goes on as an echo does.
    telling = [word for word in words if word not in _FILLERS]
    return " ".join(words[:2]) if len(telling) > 1 and follow < ECHO_WORDS else None


def _form(words: tuple[str, ...], asks: bool) -> str | None:
    """The first words of a sentence in the form of a question; after a name, perhaps."""
    for at in (0, 1):
        if len(words) - at < 2 or (at and (words[0] in _NO_NAMES or (not asks and len(words) < 4))):
            break
        word, after, more = words[at], words[at + 1], len(words) - at > 2
        squeezed = _squeeze(word)
        late = at > 0 and not asks
        if word in _CONTRACTED:
            return f"{word} {after}"
        if late and after not in _AUXILIARY and after not in _ASKED:
            break
        if more and (word in _OPEN or squeezed in _OPEN) and _asks(word, words[at + 1 :], asks):
            return f"{word} {after}"
        if asks and at == 0 and word in _OPEN and not more:
            return f"{word} {after}"
        led = _ASKED if late or (not asks and word in _BIDS) else _SUBJECT
        if more and word in _AUXILIARY and (after in led or _names(words, at, asks)):
            return f"{word} {after}"
        if at == 0 and not asks and word in _WHO and (after in _THAT or words[-1] == "at"):
            return f"{word} {after}"
    return None


def _names(words: tuple[str, ...], at: int, asks: bool) -> bool:
    """Whether a name may follow the auxiliary that a sentence begins with: `did Max win the last one`."""
    known = _BEFORE_NAMES if asks else _ASKS_OF_NAMES
    return at == 0 and len(words) > 3 and words[0] in known and words[1] not in _NO_NAMES | _NO_SUBJECT


def _asks(word: str, rest: tuple[str, ...], asks: bool) -> bool:
    """Whether what follows a question word makes a question of it."""
    if asks or word == "why":
        return True
    if word == "when":
        return rest[0] in _AUXILIARY or (
            rest[0] in {"u", "you", "we", "they"} and rest[1].endswith(("in", "ing", "gonna"))
        )
    if rest[0] in _NO_QUESTION or (word == "who" and rest[0] in _WISHES):
        return False
    if rest[0] in _PRONOUNS:  # else it is a clause: `what he said`
        return rest[1].endswith(("in", "ing")) or rest[1] in _GOES_WITH
    if word not in {"how", "hows"}:
        return True
    return rest[0] in _MEASURES or any(each in _AUXILIARY or each in _PRONOUNS or each.endswith("ing") for each in rest)


ECHO_WORDS = 3
_CONTRACTED = _set(
    "whats what's whens when's wheres where's whos who's hows how's how'd what'd where'd who'd why'd what're"
)
_MAY_OPEN = _OPEN_MARKED | _set("anyone anybody someone somebody any")
# What begins a sentence and is not the name of whom it is addressed to.
_NO_NAMES = _set(
    "that's thats that this it its it's notice means mean know knows is i we you u he she they look "
    "watch see ask people "
    "like idk the a my if but because cause and or of in on at to with for"
)
_BEFORE_NAMES = _set("did does do is are was were can could will would should has")
_ASKS_OF_NAMES = _set("did does")
_MEASURES = _set("much many long old far tall big come to about often fast late early soon")
_NO_SUBJECT = _set(
    "not so crazy be have never just literally actually still too very really all for good bad no better worse as "
    "what why how where who wild insane peak see get go say make take give do done gonna going "
    "about more less also only"
)
_WHO = _set("who where what whos wheres")
_THAT = _set("that dat this dis it he she they u you")
_BIDS = _set("have has had do don't dont")  # also begin `have a great day`, `do the dance`
# Who is asked, where a name or another word stands before the question.
_ASKED = _set("u you they we")
_PRONOUNS = _set("he she they we it you u i ya yall y'all")
_GOES_WITH = _set("gonna got at from think up want mean to doin on about gon")
_WISHES = _set("knew would wouldn't wouldnt needs even said wants")
# After "what", "who", "how" or "where" these tell or cry.
_NO_QUESTION = _set("a an the say says i my not tf")


def _question_without_spaces(line: Line) -> Reading:
    sentences = [(found[1], found[2]) for found in _CJK_SENTENCE.finditer(line.text)]
    if len(sentences) >= REPEATED_CJK and len(set(sentences)) == 1:
        return Reading(None, why="it repeats itself")
    for number, (said, signs) in enumerate(sentences):
        rest = "".join(each for each, _ in sentences[number + 1 :])
        if "?" in signs and _asks_cjk(said, signs, rest):
            return Reading("question", "?")
    if not line.asks and (found := _ASKS_CJK_UNMARKED.search(line.text.strip())):
        return Reading("question", found[0])
    return Reading(None, why="it has a question mark, but asks nothing") if line.asks else NOTHING


def _asks_cjk(said: str, signs: str, rest: str) -> bool:
    """Whether a sentence that ends with a question mark asks; one with `!` beside it must do so in its words."""
    if _WONDERS_CJK.search(said) or _CRIES_CJK.fullmatch(said):
        return False
    if _FIRM_CJK.search(said):
        return True
    if _ONE_NOUN_CJK.fullmatch(said) or _NOUN_CJK.fullmatch(said) or "!" in signs or _TELLS_CJK.match(rest):
        return False
    if len(rest) > 2 * len(said) and not _ASKS_CJK.search(said):
        return False
    return len(said) >= LEAST_CJK or bool(_ASKS_CJK.search(said))


_BOUNDARY = re.compile(r"[.!?…,;][^\w]*$")
_LAUGHTER = re.compile(r"\b(?:l+m+f*a+o+\w*|l+o+l+\w*|ha(?:ha)+\w*|kek\w*|lul\w*|omeg\w*|xd+)\b|[😭💀😂🤣]")
_QUOTED = _set("say says said saying tell tells told like called named song means mean")
_OTHERS = _set("he she they you u we it who bro that this him her them")
_CLOSING = re.compile(r"[\s]*[,.!~…:;)\-(]")
_LATE = _set("later")
_MYSELF = _set("i im i'm ive i've my")
_NOT_DRAWN_OUT = _set("oi")
_CALLS = _set("yo yoo yooo")


def greeting(line: Line, place: Place) -> Reading:
    """Whether a greeting word, which stands there, greets."""
    return _read("greeting", place, _no_greeting(line, place))


def _no_greeting(line: Line, place: Place) -> str:
    if not _SPACED.search(place.word):
        return "" if len(line.text) <= MAX_UNSPACED else "the greeting is part of a longer text"
    before, after = line.words[: place.start], line.words[place.end :]
    follows = after[0] if after else ""
    if place.word in _CALLS:
        return _no_call(line, before, after)
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


def _no_call(line: Line, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """Words that are more often a cry than a greeting."""
    alone = all(each in _FILLERS for each in before) and all(each in _CALLS | _AUDIENCE for each in after[:4])
    calm = not line.asks and not _LAUGHTER.search(line.text)
    return "" if alone and calm else "it is a cry and no greeting"


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
