"""Answers that were given already: to the same question, of the same model, told the same, in the same community.

Only of questions that carry nothing of who asks: nobody's conversation and no recent chat is part of their prompt, and
they are not about the asker, who is called by a stand-in until the answer is given. Answers are in Valkey, and for
communities that keep texts in PostgreSQL behind it, sealed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

import orjson

from providers.base import Usage
from services.chains import Choice
from services.communities import Community
from services.database import Database, DatabaseUnavailable
from services.logs import Log
from services.metrics import Metrics
from services.prompts import Prompt
from services.tasks import Tasks
from services.texts import fold
from services.valkey import Valkey, ValkeyAway
from services.vault import Unreadable, Vault

QUESTION = "question"
# A name that nobody has, for models that call by name whom they answer.
STAND_IN = "Quillon"
_STAND_IN = re.compile(STAND_IN, re.IGNORECASE)
LONGEST = 300
MAX_IN_MEMORY = 1_000
MEMORY_SECONDS = 30.0
_ABOUT_ASKER = re.compile(
    r"\b(?:my|mine|myself|am i|i'?m|i am|i'?ve|i have|i was|i had|did i|was i|who i|me"
    r"|i (?:live|work|like|love|hate|want|need|feel|got|play|study|come|go)"
    r"|mein\w*|ich bin|bin ich|mon|ma|mes|je suis|suis-je|mis?|soy|meus?|minhas?|sou eu|мо[йяиё]|моего|меня зовут)\b"
    r"|私|僕|俺|わたし|ぼく|おれ|我的|나의|내가"
)
_LAST_SIGNS = " ?!.。…~"


@dataclass(frozen=True)
class Kept:
    """An answer, with the stand-in for a name, who gave it, and what that took."""

    text: str
    provider: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens)

    def to(self, name: str) -> str:
        """The text for someone."""
        return _STAND_IN.sub(lambda _: name, self.text)


@dataclass(frozen=True)
class Question:
    """A question that may have been answered already: how it is asked, and what it is known by."""

    prompt: Prompt
    community_id: UUID
    key: bytes

    @property
    def name(self) -> str:
        return f"sidecast:{{{self.community_id}}}:answer:{self.key.hex()}"


class AnswerCache:
    """Looks answers up and keeps them."""

    def __init__(
        self, valkey: Valkey, database: Database, vault: Vault, tasks: Tasks, metrics: Metrics, log: Log
    ) -> None:
        self._valkey = valkey
        self._database = database
        self._vault = vault
        self._tasks = tasks
        self._metrics = metrics
        self._log = log
        self._memory: OrderedDict[str, tuple[float, Kept]] = OrderedDict()

    async def find(self, question: Question, community: Community) -> Kept | None:
        """The answer, if it was given of late."""
        kept = self._in_memory(question) or await self._in_valkey(question, community)
        if kept is None and community.settings.store_content:
            kept = await self._in_database(question)
        self._metrics.answers["miss" if kept is None else "hit"].inc()
        return kept

    def keep(self, question: Question, kept: Kept, community: Community) -> None:
        """Keep an answer for `cache_seconds`, soon."""
        self._tasks.spawn(self._keep(question, kept, community), "keep an answer")

    def _in_memory(self, question: Question) -> Kept | None:
        until, kept = self._memory.get(question.name, (0.0, None))
        return kept if until > time.monotonic() else None

    def _remember(self, question: Question, kept: Kept, seconds: float) -> None:
        """For the next who ask, without a word with Valkey."""
        self._memory[question.name] = time.monotonic() + min(seconds, MEMORY_SECONDS), kept
        self._memory.move_to_end(question.name)
        while len(self._memory) > MAX_IN_MEMORY:
            self._memory.popitem(last=False)

    async def _in_valkey(self, question: Question, community: Community) -> Kept | None:
        try:
            found = await self._valkey.run(lambda client: client.get(question.name))
        except ValkeyAway:
            return None
        if not found:
            return None
        kept = Kept(*orjson.loads(found))
        # Valkey knows for how long it may still be given, which is not asked for.
        self._remember(question, kept, min(MEMORY_SECONDS, community.settings.cache_seconds))
        return kept

    async def _in_database(self, question: Question) -> Kept | None:
        about = {"community_id": question.community_id, "key": question.key}
        try:
            async with self._database.connection() as connection:
                row = await self._database.queries.select_kept_answer(connection, **about)
            text = self._vault.open(question.name, row["sealed"]) if row else None
        except (DatabaseUnavailable, Unreadable) as error:
            self._log.info("answers.passed_over", f"a kept answer cannot be had ({type(error).__name__})")
            return None
        if row is None or text is None:
            return None
        await self._put(question, text, row["seconds"])
        return Kept(*orjson.loads(text))

    async def _keep(self, question: Question, kept: Kept, community: Community) -> None:
        text, seconds = orjson.dumps(dataclasses.astuple(kept)).decode(), community.settings.cache_seconds
        self._remember(question, kept, seconds)
        await self._put(question, text, seconds)
        if not community.settings.store_content:
            return
        sealed = self._vault.seal(question.name, text)
        row = {"community_id": question.community_id, "key": question.key, "sealed": sealed, "seconds": seconds}
        try:
            async with self._database.connection() as connection:
                await self._database.queries.keep_answer(connection, **row)
        except DatabaseUnavailable:
            self._log.info("answers.not_kept", "PostgreSQL is away: an answer is in Valkey alone")

    async def _put(self, question: Question, text: str, seconds: float) -> None:
        try:
            await self._valkey.run(lambda client: client.set(question.name, text, px=max(int(seconds * 1000), 1)))
        except ValkeyAway:
            pass  # then it is asked again

    async def trim(self, rows: int) -> int:
        """Delete up to `rows` answers that are too old; how many. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            return int(await self._database.queries.delete_expired_answers(connection, rows=rows))


def question_of(prompt: Prompt, community: Community, choice: Choice) -> Question | None:
    """The question as anyone might ask it; None where it carries something of who asks."""
    said = fold(prompt.said)
    if prompt.occasion.kind != QUESTION or prompt.past or prompt.earlier or not community.settings.cache_seconds:
        return None
    if len(said) > LONGEST or _ABOUT_ASKER.search(said.replace("’", "'")) or STAND_IN.casefold() in said:
        return None
    anyone = dataclasses.replace(prompt, name=STAND_IN)
    plain = dataclasses.replace(anyone, said=" ".join(said.split()).rstrip(_LAST_SIGNS))
    link = choice.link
    told = plain.messages(examples=link.provider.needs_examples)
    asked = [link.provider.address, choice.model, choice.temperature, choice.max_tokens, told]
    key = hashlib.blake2b(orjson.dumps(asked), digest_size=16).digest()
    return Question(anyone, community.community_id, key)
