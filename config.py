"""Settings of the service, read once from the environment.

Every variable has a default that works. A bad value stops the start with a message that names the
variable, what is wrong with it and what is allowed; a value is never repeated in it, since it may be a key.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# Timeouts and sizes that are not settings: every outbound call takes one of these or a setting. Seconds.
CONNECT_TIMEOUT = 3.0
DATABASE_TIMEOUT = 5.0
VALKEY_TIMEOUT = 2.0  # nothing before a receipt waits for it; less, and a busy process takes itself for a dead Valkey
ROUTER_TIMEOUT = 10.0
PROBE_TIMEOUT = 1.5
SIGN_IN_TIMEOUT = 5.0
BODY_TIMEOUT = 10
MAX_EVENT_BYTES = 64 * 1024
MAX_FORM_BYTES = 512 * 1024
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_COMPLETION_BYTES = 1024 * 1024

# In DATA_DIR while the embedded parts run: their addresses and keys.
RUNNING = "running.json"
DEFAULT_TEMPERATURE = 0.7

Provider = Literal["embedded", "ollama", "waddleai", "openai", "anthropic", "openrouter", "huggingface", "custom"]

# Set to nothing, these are nothing; every other variable set to nothing keeps its default.
EMPTY_COUNTS = frozenset({"response_prefix", "question_triggers", "event_response_types", "bot_names"})


def _split(value: object) -> object:
    """Split `a, b,c` at its commas; an empty text is an empty list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _strip_slash(value: str) -> str:
    return value.rstrip("/")


def _check_url(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value


def _check_issuer(value: str) -> str:
    url = urlsplit(value)
    if value and url.scheme != "https" and url.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ValueError("must start with https://, since whoever reads along could sign in as anyone")
    return value


def _check_scopes(value: str) -> str:
    if "openid" not in value.split():
        raise ValueError("must have openid in it")
    return value


def _check_channel(value: str) -> str:
    if value and (value.count("{sub}") != 1 or set("{}") & set(value.replace("{sub}", ""))):
        raise ValueError("must have {sub} in it, once, and no other braces")
    return value


def _check_networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for number, value in enumerate(values, 1):
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f"entry {number}: must be an address or a network such as 10.0.0.0/8") from None
    return values


def _check_secret(secret: SecretStr) -> SecretStr:
    scheme, separator, encoded = secret.get_secret_value().partition("_")
    if scheme + separator == "whsec_":
        try:
            base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError("a secret that begins with whsec_ must go on in base64") from None
    return secret


def _check_pairs(secret: SecretStr) -> SecretStr:
    for number, pair in enumerate(secret.get_secret_value().split(",") if secret else (), 1):
        name, separator, _ = pair.partition("=")
        if not name.strip() or not separator:
            raise ValueError(f"entry {number}: must be name=value")
    return secret


Temperature = Annotated[float, Field(ge=0, le=2)]
Tokens = Annotated[int, Field(ge=1, le=10_000)]


class Fallback(BaseModel):
    """An entry of `AI_FALLBACKS`; what is None is as for the provider otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Provider
    model: str
    temperature: Temperature | None = None
    max_tokens: Tokens | None = None


def read_fallback(entry: str) -> Fallback:
    """`provider/model?temperature=…&max_tokens=…`. Raises ValueError."""
    path, _, query = entry.partition("?")
    provider, _, model = path.partition("/")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if (query and not given) or given.keys() - {"temperature", "max_tokens"}:
        raise ValueError("an entry takes temperature and max_tokens alone")
    return Fallback.model_validate({"provider": provider, "model": model} | given)


def check_fallbacks(entries: tuple[str, ...]) -> tuple[str, ...]:
    for number, entry in enumerate(entries, 1):
        try:
            read_fallback(entry)
        except ValidationError as error:
            [problem, *_] = error.errors(include_url=False, include_input=False)
            raise ValueError(f"entry {number}: {problem['loc'][0]}: {problem['msg']}") from None
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    return entries


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]
SigningSecret = Annotated[SecretStr, AfterValidator(_check_secret)]
Url = Annotated[str, AfterValidator(_check_url), AfterValidator(_strip_slash)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Settings(BaseSettings):
    """One field a variable; the description of each is its line in the README."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    # --- the service
    module_name: str = Field("ai_interaction_module", description="Name in replies, logs and `/status`.")
    module_version: str = Field("0.1.0", description="Version in `/status`.")
    module_port: Port = Field(8005, description="Port the service listens on.")
    bind_host: str = Field("127.0.0.1", description="Address the service listens on; `0.0.0.0` for all.")
    data_dir: str = Field("./data", description="Where the embedded parts and the first run's keys are kept.")
    database_url: str = Field(
        "", description="PostgreSQL 15 or newer to use; empty: the embedded PostgreSQL of `scripts/serve`."
    )
    redis_url: str = Field(
        "", description="Valkey or Redis to use; empty: the embedded Valkey of `scripts/serve`, else memory only."
    )
    max_concurrent_requests: int = Field(
        10, ge=1, le=1000, description="Events answered at once; more wait in PostgreSQL."
    )
    reply_ttl: Seconds = Field(
        90, description="Seconds after receipt when an unanswered event expires: nobody wants a late hello."
    )
    delivery_ttl: Seconds = Field(300, description="Seconds a reply is offered to the router before it is given up.")
    lease_seconds: Seconds = Field(
        30, description="Seconds an instance holds an event without a sign of life before another takes it."
    )
    max_attempts: int = Field(3, ge=1, le=100, description="Times an event is tried before it ends as `failed`.")
    journal_retention: float = Field(
        7,
        ge=1,
        le=3650,
        description="Days that what is known of an ended event is kept. Its texts go when it ends; a community that "
        "keeps them (`store_content`) may keep them longer, and then this too.",
    )
    history_retention: float = Field(
        365, ge=1, le=3650, description="Days that it is known what was answered to whom, texts aside."
    )
    event_stream_length: int = Field(
        10_000, ge=0, le=1_000_000, description="Entries kept on the stream `sidecast:events` of Valkey; 0: none."
    )
    drain_timeout: Seconds = Field(20, description="Seconds a stopping instance gives to what it has begun.")
    auto_register: bool = Field(
        True, description="Make a community for a channel seen for the first time; off: such events are refused."
    )

    # --- keys
    secret_key: SecretStr = Field(
        SecretStr(""), description="Secret that keys, texts and tokens are sealed or signed with; made by a first run."
    )
    secret_key_previous: SecretStr = Field(
        SecretStr(""), description="The secret before, while it is changed: what was sealed with it can still be read."
    )
    valid_api_keys: Secrets = Field((), description="Admin keys, comma-separated; made by a first run.")

    jwt_jwks_url: Url = Field(
        "",
        description="Where the public keys of RS256 and ES256 tokens are (JWKS); HS256 ones are signed by "
        "`SECRET_KEY`.",
    )
    jwt_issuer: str = Field("", description="Issuer (`iss`) that tokens must have; empty: any.")
    jwt_audience: str = Field("", description="Audience (`aud`) that tokens must have; empty: any.")
    api_rate_limit: int = Field(
        600, ge=0, le=1_000_000, description="Requests a minute that a key may make, events aside; 0: any number."
    )
    dashboard_plain_http: bool = Field(
        False,
        description="Let people sign in to the dashboard over plain HTTP from other machines, where others may read "
        "along.",
    )
    oidc_issuer: Annotated[Url, AfterValidator(_check_issuer)] = Field(
        "",
        description="OpenID Connect: who signs people in to the dashboard (its `issuer`); empty: nobody, keys alone.",
    )
    oidc_client_id: str = Field("", description="What this service is called there.")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Its secret there.")
    oidc_name: str = Field(
        "OpenID Connect", max_length=50, description="What the button says after `Sign in with`, such as `Twitch`."
    )
    oidc_scopes: Annotated[str, AfterValidator(_check_scopes)] = Field(
        "openid", description="Scopes asked for, with spaces between them."
    )
    oidc_admins: Words = Field(
        (),
        description="Who is an admin: ids (`sub`), or e-mail addresses, which count only if they were verified there.",
    )
    oidc_channel: Annotated[str, AfterValidator(_check_channel)] = Field(
        "",
        description="Channel of whoever signs in, whose community is theirs, such as `twitch:channel:{sub}`; empty: "
        "none.",
    )
    oidc_redirect_url: Url = Field(
        "",
        description="Where people come back to, `https://…/dashboard/oidc/callback`; empty: as the browser has asked.",
    )
    trusted_proxies: Annotated[Words, AfterValidator(_check_networks)] = Field(
        (), description="Addresses or networks of proxies whose `X-Forwarded-For` says who calls."
    )
    intake_secret: Annotated[tuple[SigningSecret, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Secrets that events must be signed with (Standard Webhooks), comma-separated; empty: none.",
    )

    # --- the router
    router_api_url: Url = Field("", description="Where replies go; empty: the development router built in.")
    router_response_path: str = Field(
        "/response", pattern="^/", description="Path below `ROUTER_API_URL` that replies are posted to."
    )
    router_response_format: Literal["full", "compact"] = Field(
        "full", description="Shape of a reply; `compact` has `event_id`, `response`, `platform`, `channel_id` alone."
    )
    router_api_key: SecretStr = Field(SecretStr(""), description="Bearer key sent to the router.")
    router_callback_secret: SigningSecret = Field(
        SecretStr(""), description="Signs replies by Standard Webhooks (`whsec_…` in base64, or any text)."
    )

    # --- the model
    ai_provider: Provider = Field("embedded", description="Which provider answers first.")
    ai_model: str = Field("", description="Model of that provider; empty: the provider's own setting.")
    ai_temperature: Temperature | None = Field(
        None, description="How freely the model answers; empty: 0.7, and 0.2 for the small embedded model."
    )
    ai_max_tokens: Tokens = Field(150, description="Longest answer in tokens; 150 fill a chat message.")
    ai_context_tokens: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Tokens that a prompt and its reply may have together; 0: as known of the provider (200,000 for "
        "Anthropic, 128,000 for OpenAI, 4,096 for Ollama, 2,048 for the embedded model, 8,192 elsewhere).",
    )
    ai_fallbacks: Annotated[Words, AfterValidator(check_fallbacks)] = Field(
        (),
        description="Providers tried after it, in order: `provider/model,…`, each with parameters of its own if need "
        "be: `provider/model?temperature=0.2&max_tokens=60`.",
    )
    ai_hedge_seconds: float = Field(
        0,
        ge=0,
        le=3600,
        description="Seconds after which the next provider is asked as well; the first answer counts; 0: never.",
    )
    request_timeout: Seconds = Field(
        30, description="Seconds one call of a model may take, where a provider has no setting of its own."
    )
    breaker_failures: int = Field(
        5, ge=1, le=1000, description="Failures in a row after which a provider is not asked for a while."
    )
    breaker_window_seconds: Seconds = Field(
        30, description="Or when half of the calls failed in so many seconds (and see the next)."
    )
    breaker_window_calls: int = Field(
        20, ge=1, le=100_000, description="Least number of calls in that time from which their half counts."
    )
    breaker_open_seconds: Seconds = Field(
        60, description="How long it is not asked, in seconds; then one call finds out."
    )
    embedded_model_path: str = Field("", description="Another GGUF file for the embedded model.")
    embedded_model_url: Url = Field("", description="Where the embedded model listens; set by `scripts/serve`.")
    embedded_model_key: SecretStr = Field(SecretStr(""), description="Its key; set by `scripts/serve`.")
    ollama_host: str = Field("localhost", description="Host of the Ollama server.")
    ollama_port: Port = Field(11434, description="Port of the Ollama server.")
    ollama_use_tls: bool = Field(False, description="Speak https to Ollama.")
    ollama_cert_path: str = Field(
        "",
        description="PEM file: the CA that Ollama's certificate is checked against, or a client's own with its key, "
        "which that CA may follow.",
    )
    ollama_verify_ssl: bool = Field(True, description="Check Ollama's certificate.")
    ollama_model: str = Field("llama3.2", description="Model asked of Ollama.")
    ollama_temperature: Temperature | None = Field(None, description="Instead of `AI_TEMPERATURE` for Ollama.")
    ollama_max_tokens: Tokens | None = Field(None, description="Instead of `AI_MAX_TOKENS` for Ollama.")
    ollama_keep_alive: str = Field("", description="How long Ollama keeps the model loaded (`10m`); empty: its own.")
    ollama_timeout: Seconds = Field(30, description="Seconds one call of Ollama may take.")
    waddleai_base_url: Url = Field(
        "http://waddleai-proxy:8000", description="The WaddleAI proxy, with or without `/v1` at the end."
    )
    waddleai_api_key: SecretStr = Field(SecretStr(""), description="Its key, `wa-…`.")
    waddleai_model: str = Field("auto", description="Model asked of WaddleAI; `auto` lets the proxy choose.")
    waddleai_preferred_model: str = Field("", description="Model asked of WaddleAI instead of `auto`.")
    waddleai_temperature: Temperature | None = Field(None, description="Instead of `AI_TEMPERATURE` for WaddleAI.")
    waddleai_max_tokens: Tokens | None = Field(None, description="Instead of `AI_MAX_TOKENS` for WaddleAI.")
    waddleai_timeout: Seconds = Field(30, description="Seconds one call of WaddleAI may take.")

    openai_api_key: SecretStr = Field(SecretStr(""), description="Key of OpenAI.")
    openai_base_url: Url = Field("https://api.openai.com/v1", description="Another server in place of OpenAI's.")
    anthropic_api_key: SecretStr = Field(SecretStr(""), description="Key of Anthropic.")
    anthropic_base_url: Url = Field("https://api.anthropic.com", description="Another server in place of Anthropic's.")
    openrouter_api_key: SecretStr = Field(SecretStr(""), description="Key of OpenRouter.")
    hf_token: SecretStr = Field(SecretStr(""), description="Token of Hugging Face's inference providers.")
    custom_base_url: Url = Field("", description="A server of your own that speaks OpenAI's API; ends in `/v1`.")
    custom_api_key: SecretStr = Field(SecretStr(""), description="Its key.")

    community_url_allow: Words = Field(
        (),
        description="Hosts, `host:port` or networks that the base URLs of communities may name although they are not "
        "public.",
    )
    community_url_http: bool = Field(False, description="Let communities' base URLs be http as well as https.")

    # --- what it says, and when
    system_prompt: str = Field(
        "You are the friendly co-host of a live stream's chat. Answer in one or two short sentences, "
        "at most 200 characters, in plain text.",
        max_length=2000,
        description="What the model is told before everything else.",
    )
    response_prefix: str = Field("🤖 ", max_length=50, description="Put before every reply.")
    question_triggers: Words = Field(
        ("?",), description="Signs and words that make a message a question; words match whole words."
    )
    respond_to_events: bool = Field(True, description="Answer events (follows, raids, …) as well as chat.")
    event_response_types: Words = Field(
        (
            *("subscription", "gift_subscription", "resub", "resubscription", "follow", "donation", "cheer", "raid"),
            *("boost", "member_join"),
        ),
        description="Events that are answered.",
    )
    gather_seconds: float = Field(
        2,
        ge=0,
        le=60,
        description="Seconds that a follow, a subscription or a gift waits for others, to be answered with them as "
        "one; 0: each by itself.",
    )
    bot_names: Words = Field(
        (
            "nightbot",
            "streamelements",
            "streamlabs",
            "moobot",
            "fossabot",
            "wizebot",
            "botisimo",
            "sery_bot",
            "botrix",
            "kickbot",
            "soundalerts",
            "kofistreambot",
            "pokemoncommunitygame",
        ),
        description="User names that are never answered.",
    )
    enable_chat_context: bool = Field(True, description="Remember what each user said and was answered.")
    context_history_limit: int = Field(5, ge=0, le=100, description="Exchanges of a user that a prompt shows.")
    context_ttl: Seconds = Field(1800, description="Seconds after its last word that a conversation is forgotten.")

    # --- alerts
    alert_seconds: float = Field(
        60, ge=5, le=3600, description="Seconds that a model must be degraded, over as many seconds, until it is told."
    )
    alert_error_rate: float = Field(
        0.2, ge=0.01, le=1, description="It is where so great a share of at least five calls fails."
    )
    alert_latency_seconds: float = Field(
        15, ge=0.1, le=600, description="Or where half of its calls take longer than so many seconds."
    )

    # --- traces
    otel_exporter_otlp_endpoint: Url = Field(
        "",
        description="Collector that traces are sent to, OTLP over HTTP, such as `http://localhost:4318`; empty: none "
        "are made.",
    )
    otel_exporter_otlp_headers: Annotated[SecretStr, AfterValidator(_check_pairs)] = Field(
        SecretStr(""), description="Headers sent to it, comma-separated: `name=value,…`, values as in a URL."
    )
    otel_service_name: str = Field("", description="Name of the service in traces; empty: `MODULE_NAME`.")
    otel_traces_sampler_arg: float = Field(
        1, ge=0, le=1, description="Share of the traces that are made, where the router has not decided that already."
    )

    # --- logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level written; `system` and `audit` lines are always written."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, JSON elsewhere."
    )
    log_dir: str = Field("", description="Folder for a log file as well (10 MB each, 5 kept); empty: none.")
    enable_syslog: bool = Field(False, description="Write to the local syslog as well.")

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != "" or name in EMPTY_COUNTS}

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        """Signing in by OpenID Connect works, or is not set up at all."""
        needed: dict[str, object] = {
            "OIDC_ISSUER": self.oidc_issuer,
            "OIDC_CLIENT_ID": self.oidc_client_id,
            "OIDC_CLIENT_SECRET": self.oidc_client_secret,
            "OIDC_ADMINS or OIDC_CHANNEL": self.oidc_admins or self.oidc_channel,
        }
        missing = [name for name, value in needed.items() if not value]
        if missing and (len(missing) < len(needed) or self.oidc_redirect_url):
            raise PydanticCustomError("incomplete", f"{missing[0]}: not set, and nobody could sign in without it")
        return self


class ConfigError(Exception):
    """The environment holds a value that cannot be used; the text is for the person who set it."""


def load_running_settings() -> Settings:
    """The settings of the service that runs on DATA_DIR, its embedded parts' addresses included. Raises ConfigError."""
    running = Path(load_settings().data_dir) / RUNNING
    addresses = json.loads(running.read_text()) if running.exists() else {}
    return load_settings(**{name.lower(): value for name, value in addresses.items()})


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides` go before it. Raises ConfigError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem["loc"], problem["msg"]) for problem in error.errors())) from None


def _explain(location: tuple[int | str, ...], problem: str) -> str:
    if not location:
        return problem  # of several variables together, which it names
    name = str(location[0])
    allowed = allowed_values(Settings.model_fields[name])
    return f"{name.upper()}: {problem}" + (f" (allowed: {allowed})" if allowed else "")


def allowed_values(field: FieldInfo) -> str:
    """The values a field takes, as a person would write them; empty where any text goes."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "true, false"
    bounds = _bounds(field)
    if "max_length" in bounds:
        return f"at most {bounds['max_length']} characters"
    if "gt" in bounds or "ge" in bounds:
        low = f"more than {bounds['gt']}" if "gt" in bounds else f"{bounds['ge']}"
        return f"{low} to {bounds['le']}"
    return ""


def _bounds(field: FieldInfo) -> dict[str, int]:
    """The limits in a field's metadata, those inside `X | None` included."""
    metadata = list(field.metadata)
    for part in get_args(field.annotation):
        for extra in getattr(part, "__metadata__", ()):
            metadata.extend(getattr(extra, "metadata", ()))
    names = ("gt", "ge", "le", "max_length")
    return {name: getattr(item, name) for item in metadata for name in names if getattr(item, name, None) is not None}
