"""The strict JSON reader: what parsers read differently is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routes.body import MAX_DEPTH, parse
from routes.errors import APIError

REFUSED = {
    "nested deeply": b"[" * 5_000 + b"]" * 5_000,
    "nested without end": b'{"a":' * 200_000,
    "an invalid byte": b'"\xff"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "5,000 digits": b"1" * 5_000,
    "beyond 64 bits": b"9223372036854775808",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "beyond a double": b"1e999",
    "a duplicate key": b'{"id": 1, "id": 2}',
    "a lone surrogate": b'"\\ud800"',
    "U+0000": b'{"a": ["\\u0000"]}',
    "U+0000 in a key": b'{"\\u0000": 1}',
    "a raw control character": b'"\x01"',
    "nothing": b"",
    "two values": b"{} {}",
    "a trailing comma": b"[1,]",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(APIError) as error:
        parse(raw)
    assert (error.value.status, error.value.code) == (400, "INVALID_REQUEST")
    assert error.value.details[0]["field"] == "body"


def test_brackets_in_texts_are_not_nesting() -> None:
    text = '\\"[' * (MAX_DEPTH * 2)
    assert parse(f'{{"a": "{text}"}}'.encode()) == {"a": '"[' * (MAX_DEPTH * 2)}


def test_pairs_of_surrogates_are_one_character() -> None:
    assert parse(b'"\\ud83e\\udd16"') == "🤖"


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
)


@given(_values)
def test_all_other_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    for ensure_ascii in (True, False):
        raw = json.dumps(value, ensure_ascii=ensure_ascii).encode()
        assert parse(raw) == json.loads(raw)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    try:
        parse(raw)
    except APIError as error:
        assert error.status == 400  # noqa: PT017 - both ways of ending are right
