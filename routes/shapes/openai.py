"""Answers in OpenAI's shapes. A field without a default is always there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class OpenAIProblem(BaseModel):
    """An error as OpenAI words it."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class OpenAIRefusal(BaseModel):
    """Every error of the OpenAI-compatible endpoints."""

    error: OpenAIProblem


class Said(BaseModel):
    """A message of the model; `tool_calls` where it calls tools."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(BaseModel):
    """One of `n` answers."""

    index: int
    message: Said
    logprobs: dict[str, Any] | None
    finish_reason: str


class CompletionUsage(BaseModel):
    """Tokens; `estimated` where the provider did not count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool | None = None


class Completion(BaseModel):
    """A chat completion, as OpenAI has it."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class Embedded(BaseModel):
    """A text as numbers, or as 32-bit floats in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens; `estimated` where the provider did not count."""

    prompt_tokens: int
    total_tokens: int
    estimated: bool | None = None


class Embeddings(BaseModel):
    """Vectors, as OpenAI has them."""

    object: Literal["list"]
    data: list[Embedded]
    model: str
    usage: EmbeddingsUsage


class Pricing(BaseModel):
    """What a token costs, as the provider says."""

    prompt: float | None
    completion: float | None


class Model(BaseModel):
    """A model, whose it is, and whether its provider answers."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    provider: str | None
    state: Literal["up", "down"]
    pricing: Pricing | None = None


class Models(BaseModel):
    """Models, as OpenAI lists them."""

    object: Literal["list"]
    data: list[Model]
