"""Rules that hold for every route and every setting, tested over all there are."""

from __future__ import annotations

import re

import pytest

from config import ConfigError, Settings, allowed_values, load_settings
from services.settings import CommunitySettings
from tests.conftest import PROJECT, MakeService

OPEN = {"/", "/api/v1/ai/status", "/health", "/health/live", "/health/ready", "/metrics"} | {
    "/openapi.json",
    "/docs",
    "/docs/<name>",
    "/dashboard/sign-in",
    "/dashboard/oidc",
    "/dashboard/oidc/callback",
    "/dashboard/static/<name>",
}


async def test_every_route_asks_for_a_key_but_the_open_ones(make_service: MakeService) -> None:
    service = await make_service()
    for rule in service.app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "x", rule.rule)
        # A WebSocket's handshake is in routes/test_stream.py.
        for method in set() if rule.websocket else (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            answer = await getattr(service.client, method.lower())(path)
            asks = rule.rule not in OPEN or method == "POST"  # signing in asks for it in its form
            assert (answer.status_code == 401) == asks, f"{method} {rule.rule}"


def test_every_setting_has_a_sentence_and_works_as_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
    assert load_settings().module_port == 8005


def test_every_setting_is_read_somewhere() -> None:
    code = "\n".join(
        path.read_text()
        for room in ("routes", "services", "providers", "embedded", ".")
        for path in (PROJECT / room).glob("*.py" if room == "." else "**/*.py")
        if path.name != "config.py"
    )
    unread = [name for name in Settings.model_fields if not re.search(rf"\b(settings|_settings)\.{name}\b", code)]
    assert unread == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("module_port", "99999", "MODULE_PORT: Input should be less than or equal to 65535 (allowed: 1 to 65535)"),
        ("ai_temperature", "2.1", "AI_TEMPERATURE: Input should be less than or equal to 2 (allowed: 0 to 2)"),
        ("ai_max_tokens", "many", "AI_MAX_TOKENS: Input should be a valid integer"),
        (
            "ai_provider",
            "magic",
            "AI_PROVIDER: Input should be 'embedded', 'ollama', 'waddleai', 'openai', 'anthropic'",
        ),
        ("router_api_url", "router:8000", "ROUTER_API_URL: Value error, must start with http:// or https://"),
        ("system_prompt", "x" * 2001, "SYSTEM_PROMPT: String should have at most 2000 characters"),
        (
            "ai_fallbacks",
            "openai/x,magic/m",
            "AI_FALLBACKS: Value error, entry 2: provider: Input should be 'embedded'",
        ),
        ("ai_fallbacks", "openai/x?temperature=3", "AI_FALLBACKS: Value error, entry 1: temperature: Input should be"),
        ("ai_fallbacks", "openai/x?top_k=3", "AI_FALLBACKS: Value error, entry 1: an entry takes temperature and"),
        ("intake_secret", "whsec_c2VjcmV0,whsec_?", "INTAKE_SECRET: Value error, a secret that begins with whsec_"),
        ("router_callback_secret", "whsec_?", "ROUTER_CALLBACK_SECRET: Value error, a secret that begins with"),
        ("alert_seconds", "4", "ALERT_SECONDS: Input should be greater than or equal to 5 (allowed: 5 to 3600)"),
        ("alert_error_rate", "20", "ALERT_ERROR_RATE: Input should be less than or equal to 1 (allowed: 0.01 to 1)"),
        ("alert_latency_seconds", "0", "ALERT_LATENCY_SECONDS: Input should be greater than or equal to 0.1 (allowed:"),
        ("respond_to_events", "perhaps", "RESPOND_TO_EVENTS: Input should be a valid boolean"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable.upper(), value)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert said in str(error.value)


def test_a_bad_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a key, put into the wrong variable."""
    monkeypatch.setenv("MODULE_PORT", "canary-7731")
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert "canary" not in str(error.value)


def test_set_to_nothing_is_the_default_unless_nothing_means_something(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODULE_PORT", "OLLAMA_HOST", "RESPONSE_PREFIX", "EVENT_RESPONSE_TYPES"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.module_port, settings.ollama_host) == (8005, "localhost")
    assert (settings.response_prefix, settings.event_response_types) == ("", ())


def test_the_readme_lists_every_setting() -> None:
    """Each with its default, what is allowed and its sentence, in the order of `Settings`."""
    readme = (PROJECT / "README.md").read_text()
    for line in settings_table():
        assert line in readme, f"README.md lacks this line:\n{line}"


async def test_the_readme_lists_every_endpoint(make_service: MakeService) -> None:
    readme = (PROJECT / "README.md").read_text()
    for rule in (await make_service()).app.url_map.iter_rules():
        if rule.endpoint.startswith("dashboard."):
            continue  # pages, each of which is a click away
        path = re.sub(r"<\w+_id>", "<id>", rule.rule)
        listed = path if not path.startswith("/health/") else f"`{path}`"
        assert listed in readme, f"README.md lacks {path}"


async def test_the_readme_lists_every_command(make_service: MakeService) -> None:
    readme = (PROJECT / "README.md").read_text()
    for group in (await make_service()).app.blueprints.values():
        for name in group.cli.commands:
            assert re.search(rf"`(scripts/sidecast )?{group.name} {name}\b", readme), f"{group.name} {name}"


def test_the_readme_lists_every_setting_of_a_community() -> None:
    readme = (PROJECT / "README.md").read_text()
    for name, field in CommunitySettings.model_fields.items():
        assert f"| `{name}` | {field.description} |" in readme, name


def settings_table() -> list[str]:
    return [
        f"| `{name.upper()}` | {_default(name)} | {allowed_values(field) or '–'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def _default(name: str) -> str:
    value = getattr(load_settings(), name)
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if value is None or str(value) == "":
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
