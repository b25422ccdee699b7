"""What every answer of this service's own is wrapped in."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from services.health import Health

Data = TypeVar("Data")


class Success(BaseModel, Generic[Data]):
    """Every answer that is no error."""

    success: Literal[True]
    data: Data


class Detail(BaseModel):
    """A field, and what is wrong with it."""

    field: str
    problem: str


class Problem(BaseModel):
    """A code for programs, a sentence for people; `details` name bad fields."""

    code: str
    message: str
    details: list[Detail]


class Refusal(BaseModel):
    """Every error."""

    success: Literal[False]
    error: Problem


class UnhealthyRefusal(Refusal):
    """An error with the state of each dependency."""

    data: Health | None = None
