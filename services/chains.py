"""Which providers answer for whom: `AI_PROVIDER` and `AI_FALLBACKS`, or what a community chose for itself.

Those that ask the same server with the same key share connections, a retry budget and a breaker.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakSet

from config import Settings, read_fallback
from providers.base import Provider
from providers.breaker import Breaker, Rule, State
from providers.catalog import make_provider, with_own
from providers.outbound import Outbound
from providers.resilient import Attempt, Resilient
from services.bus import MODEL_REGISTERED, PROVIDER_AWAY, PROVIDER_BACK, Bus
from services.communities import Community
from services.logs import Log
from services.metrics import Metrics
from services.settings import CommunitySettings, of_environment
from services.tracing import Tracing
from services.vault import Unreadable, Vault

MAX_OWN = 500
RETIRE_SECONDS = 600.0  # longer than any call
_CHOSEN = ("provider", "model", "temperature", "max_tokens", "fallbacks", "base_url")


@dataclass(frozen=True)
class Choice:
    """A provider, and what to ask of it."""

    link: Resilient
    model: str
    temperature: float
    max_tokens: int


def place_of_key(community_id: UUID, settings: CommunitySettings) -> str:
    """What a community's key is sealed for: this community, this provider, this address, and no other."""
    return f"{community_id} {settings.provider} {settings.base_url}"


class Chains:
    """Makes the chains, and opens and closes the providers in them."""

    def __init__(
        self, settings: Settings, vault: Vault, bus: Bus, metrics: Metrics, tracing: Tracing, log: Log
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._bus = bus
        self._metrics = metrics
        self._tracing = tracing
        self._log = log
        self._rule = Rule(
            settings.breaker_failures,
            settings.breaker_open_seconds,
            settings.breaker_window_seconds,
            settings.breaker_window_calls,
        )
        self._outbound = Outbound(settings.community_url_allow, settings.community_url_http)
        self._links: dict[str, Resilient] = {}
        self._own_links: OrderedDict[tuple[str, str, str], Resilient] = OrderedDict()
        self._open: WeakSet[Resilient] = WeakSet()
        self._registered: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._retired: set[Resilient] = set()
        self._of: OrderedDict[UUID, tuple[Community, list[Choice]]] = OrderedDict()
        self._environment = {name: of_environment(settings)[name] for name in _CHOSEN}
        try:
            self.default = self._make(self._environment)
        except ValueError as error:
            raise ValueError(f"AI_PROVIDER, AI_MODEL or AI_FALLBACKS: {error}") from None

    @property
    def providers(self) -> list[Provider]:
        """Those of the service's own chain."""
        return list(dict.fromkeys(choice.link.provider for choice in self.default))

    @property
    def models(self) -> list[tuple[str, str]]:
        """Provider and model of each that answers for the service itself."""
        return list(dict.fromkeys((choice.link.provider.name, choice.model) for choice in self.default))

    async def open(self) -> None:
        await self._open_all(self.default)

    async def close(self) -> None:
        links = [*self._links.values(), *self._own_links.values(), *self._retired]
        await asyncio.gather(*(link.provider.close() for link in links))

    async def of(self, community: Community | None, *, small: bool = False) -> list[Choice]:
        """Who answers for a community, in order, or the small model alone; without one, for the service."""
        if community is None:
            return self.default
        if small and (choice := self._small(community)):
            return await self._open_all([choice])
        known = self._of.get(community.community_id)
        if known is not None and known[0] is community:
            return known[1]
        chain = await self._open_all(self._chosen(community))
        self._of[community.community_id] = community, chain
        if len(self._of) > MAX_OWN:
            self._of.popitem(last=False)
        return chain

    def check(self, settings: CommunitySettings, key: str) -> list[Choice]:
        """All who may answer by these settings. Raises ValueError, which names the setting, where there are none."""
        chain = self._make({name: getattr(settings, name) for name in _CHOSEN}, key, keep=False)
        if not settings.budget_small_model:
            return chain
        try:
            return [*chain, self._fallback(settings.budget_small_model, keep=False)]
        except ValueError as error:
            raise ValueError(f"budget_small_model: {error}") from None

    async def check_address(self, base_url: str) -> None:
        """Raises ForbiddenAddress for an address that a community may not name."""
        await self._outbound.check_resolved(base_url)

    def _small(self, community: Community) -> Choice | None:
        try:
            return self._fallback(community.settings.budget_small_model, keep=True)
        except ValueError as error:  # it was checked, under another environment
            message = f"a community's budget_small_model cannot be used here ({error}); its own chain answers"
            self._log.error("community.chain", message, community=str(community.community_id), result="ERROR")
            return None

    def _chosen(self, community: Community) -> list[Choice]:
        settings = community.settings
        chosen = {name: getattr(settings, name) for name in _CHOSEN}
        if chosen == self._environment and not community.sealed_key:
            return self.default
        key = ""
        if community.sealed_key:
            try:
                key = self._vault.open(place_of_key(community.community_id, settings), community.sealed_key)
            except Unreadable:
                message = "the api_key of a community cannot be read; it must be set again (was SECRET_KEY changed?)"
                self._log.error("community.key", message, community=str(community.community_id), result="ERROR")
        try:
            return self._make(chosen, key)
        except ValueError as error:  # it was checked, under another environment
            message = f"a community's settings cannot be used here ({error}); the service's chain answers"
            self._log.error("community.chain", message, community=str(community.community_id), result="ERROR")
            return self.default

    def _fallback(self, text: str, *, keep: bool) -> Choice:
        """Raises ValueError."""
        entry = read_fallback(text)
        link = self._link(entry.provider, "", "", keep=keep)
        return _choice(link, entry.model, entry.temperature, entry.max_tokens)

    def _make(self, chosen: dict[str, Any], key: str = "", *, keep: bool = True) -> list[Choice]:
        """Raises ValueError."""
        first = self._link(chosen["provider"], chosen["base_url"], key, keep=keep)
        chain = [_choice(first, chosen["model"], chosen["temperature"], chosen["max_tokens"])]
        return chain + [self._fallback(entry, keep=keep) for entry in chosen["fallbacks"]]

    async def _open_all(self, chain: list[Choice]) -> list[Choice]:
        for choice in chain:
            self._register(choice)
            if choice.link not in self._open:
                self._open.add(choice.link)
                await choice.link.provider.open()
        return chain

    def _register(self, choice: Choice) -> None:
        """Tell of a model that is in a chain for the first time here."""
        about = choice.link.provider.name, choice.model
        if about not in self._registered:
            self._registered[about] = None
            if len(self._registered) > MAX_OWN:
                self._registered.popitem(last=False)
            self._bus.tell(MODEL_REGISTERED, None, {"provider": about[0], "model": about[1]})

    def _link(self, name: str, base_url: str, key: str, *, keep: bool) -> Resilient:
        """Raises ValueError."""
        own = bool(base_url or key)
        known = self._own_links.get((name, base_url, key)) if own else self._links.get(name)
        if known is not None:
            return known
        settings = with_own(self._settings, name, base_url, key) if own else self._settings
        provider = make_provider(name, settings, self._outbound if base_url else None)
        breaker = self._breaker(provider.name, own=own)
        link = Resilient(provider, breaker, self._note_attempt, self._note_retry, own=own)
        if keep and own:
            self._own_links[name, base_url, key] = link
            if len(self._own_links) > MAX_OWN:
                self._retire(self._own_links.popitem(last=False)[1])
        elif keep:
            self._links[name] = link
        return link

    def _retire(self, link: Resilient) -> None:
        """Close it when nothing can be under way on it any more."""
        self._retired.add(link)
        asyncio.get_running_loop().call_later(RETIRE_SECONDS, lambda: asyncio.ensure_future(self._end(link)))

    async def _end(self, link: Resilient) -> None:
        self._retired.discard(link)
        await link.provider.close()

    def _breaker(self, name: str, *, own: bool) -> Breaker:
        if own:
            return Breaker(self._rule, lambda state: self._note_own_breaker(name, state))
        self._metrics.provider_breaker.labels(name).state(State.CLOSED)
        return Breaker(self._rule, lambda state: self._note_breaker(name, state))

    def _note_attempt(self, attempt: Attempt) -> None:
        if not attempt.own:  # what a community asks with a key of its own says nothing about the service
            self._metrics.provider[attempt.provider.name, attempt.result].observe(attempt.seconds)
        self._tracing.attempted(attempt)

    def _note_retry(self, link: Resilient) -> None:
        if not link.own:
            self._metrics.retries[link.provider.name].inc()

    def _note_breaker(self, name: str, state: State) -> None:
        self._metrics.provider_breaker.labels(name).state(state)
        if state is State.OPEN:
            message = (
                f"{name} keeps failing and is not asked for {self._rule.open_seconds:g} s; fallbacks or canned texts "
                "answer. The lines provider.failed before this one say why."
            )
            self._log.error("provider.away", message, provider=name, result="ERROR")
            self._bus.tell(PROVIDER_AWAY, None, {"provider": name})
        elif state is State.CLOSED:
            self._log.system("provider.back", f"{name} answers again", provider=name, result="SUCCESS")
            self._bus.tell(PROVIDER_BACK, None, {"provider": name})

    def _note_own_breaker(self, name: str, state: State) -> None:
        if state is State.OPEN:
            message = f"{name}, by an address or a key of a community's own, keeps failing and is not asked for a while"
            self._log.error("provider.own_away", message, provider=name, result="ERROR")


def _choice(link: Resilient, model: str, temperature: float | None, max_tokens: int | None) -> Choice:
    """What is not given is as the provider has it. Raises ValueError where no model is named."""
    provider = link.provider
    model = model or provider.model
    if not model:
        raise ValueError(
            f"model: must be named for the provider {provider.name} (as a fallback: {provider.name}/MODEL)"
        )
    temperature = provider.temperature if temperature is None else temperature
    return Choice(link, model, temperature, max_tokens or provider.max_tokens)
