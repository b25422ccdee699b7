"""The HTTP clients' ways out: httpx, and httpx2 of the SDKs, over aiohttp's connections.

Their own connections, by httpcore, take several times as much of the processor for each request. An answer is read up
to a size, and only as it is: what comes compressed was not asked for, and may be a bomb.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import httpx2
import orjson

from config import CONNECT_TIMEOUT
from providers.base import ProviderBadAnswer, ProviderError, ProviderTimeout, ProviderUnreachable

CONNECTIONS = 200
KEEP_ALIVE_SECONDS = 30.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_LINE_BYTES = 256 * 1024
# What the openai and anthropic SDKs would tell any server of this machine.
MACHINE_HEADERS = tuple(
    f"X-Stainless-{name}" for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
)


class UnfitAnswer(Exception):
    """An answer that is compressed or too large."""


class _Body(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """The body of an answer, as it comes. Raises UnfitAnswer, and the errors of `http`, which is httpx or httpx2."""

    def __init__(self, answer: aiohttp.ClientResponse, http: ModuleType) -> None:
        self._answer = answer
        self._http = http

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._answer.headers.get("Content-Encoding", "identity") != "identity":
            raise UnfitAnswer("a compressed answer, which was not asked for")
        left = MAX_ANSWER_BYTES
        try:
            async for piece in self._answer.content.iter_any():
                left -= len(piece)
                if left < 0:
                    raise UnfitAnswer(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _of_httpx(error, self._http) from error

    async def aclose(self) -> None:
        self._answer.release()


class _Transport(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):
    """Sends the requests of `http`, which is httpx or httpx2, by a session that keeps no cookies and asks no proxy."""

    def __init__(self, http: ModuleType, verify: ssl.SSLContext | bool) -> None:
        self._http = http
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: Any) -> Any:
        if self._session is None:  # made where the loop runs
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=self._verify)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        given = request.extensions.get("timeout", {})
        waits = aiohttp.ClientTimeout(
            connect=given.get("pool"), sock_connect=given.get("connect"), sock_read=given.get("read")
        )
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        headers = [pair for pair in headers if pair[0].lower() != "accept-encoding"]
        headers.append(("Accept-Encoding", "identity"))
        try:
            answer = await self._session.request(
                request.method,
                str(request.url),
                headers=headers,
                data=request.content or None,
                allow_redirects=False,
                timeout=waits,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _of_httpx(error, self._http) from error
        body = _Body(answer, self._http)
        return self._http.Response(answer.status, headers=answer.raw_headers, stream=body, request=request)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _of_httpx(error: Exception, http: ModuleType) -> Exception:
    """What httpx or httpx2 would have raised."""
    if isinstance(error, TimeoutError):
        kind = http.ReadTimeout
    else:
        kind = http.ConnectError if isinstance(error, aiohttp.ClientConnectorError) else http.ReadError
    made: Exception = kind(str(error))
    return made


class _Plain:
    """Goes before a client: it sends what it is given and no more, since all requests are made whole.

    No cookies of earlier answers, no redirects, no credentials of the environment.
    """

    _transport: Any

    async def send(self, request: Any, *, stream: bool = False, **_options: Any) -> Any:
        response = await self._transport.handle_async_request(request)
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response


class Client(_Plain, httpx.AsyncClient):
    """For requests of our own."""

    def __init__(self) -> None:
        super().__init__(transport=_Transport(httpx, verify=True), trust_env=False)


class SDKClient(_Plain, httpx2.AsyncClient):
    """For the openai and anthropic SDKs, which set the timeouts of each request."""

    def __init__(self) -> None:
        super().__init__(transport=_Transport(httpx2, verify=True), trust_env=False)


def httpx_options(timeout: float, verify: ssl.SSLContext | bool) -> dict[str, Any]:
    """What to make an `httpx.AsyncClient` with: `timeout` seconds for each wait of a call, no redirects."""
    return {
        "transport": _Transport(httpx, verify),
        "timeout": httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
        "trust_env": False,
        "follow_redirects": False,
    }


class Straight:
    """Goes before an SDK's client: its address, headers, credentials and errors, without what it does at each request.

    Retries, hooks and copies of the options, which are off or unused here, took longer than the network.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._prepared: dict[str, tuple[httpx2.URL, httpx2.Headers, dict[str, Any]]] = {}

    async def ask(self, path: str, body: dict[str, Any] | None = None, *, stream: bool = False) -> httpx2.Response:
        """The answer to a POST of `body`, or to a GET without one; of a stream its beginning.

        Raises the SDK's APIStatusError, httpx2's errors and UnfitAnswer.
        """
        sdk: Any = self
        url, headers, extensions = self._prepared.get(path) or self._prepare(path)
        method, content = ("GET", None) if body is None else ("POST", orjson.dumps(body))
        request = httpx2.Request(method, url, headers=headers, content=content, extensions=extensions)
        answer: httpx2.Response = await sdk._client.send(request, stream=stream)
        if not answer.is_success:
            try:
                await answer.aread()
            finally:
                await answer.aclose()
            raise sdk._make_status_error_from_response(answer)
        return answer

    def _prepare(self, path: str) -> tuple[httpx2.URL, httpx2.Headers, dict[str, Any]]:
        sdk: Any = self
        url = httpx2.URL(path if "://" in path else f"{sdk.base_url}".rstrip("/") + path)
        given = sdk.auth_headers | sdk.default_headers  # what is to be left out has no text
        headers = httpx2.Headers({name: value for name, value in given.items() if isinstance(value, str)})
        self._prepared[path] = url, headers, {"timeout": sdk.timeout.as_dict()}
        return self._prepared[path]


def timed_out(error: BaseException) -> bool:
    """Whether a call's time was over, and not its connection refused or broken."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError | httpx.TimeoutException | httpx2.TimeoutException):
            return True
        cause = cause.__cause__
    return False


def connection_error(name: str, error: BaseException) -> ProviderError:
    """What an error of a client, or of an SDK around it, says of the provider `name`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnfitAnswer):
            return ProviderBadAnswer(f"{name}: {cause}")
        cause = cause.__cause__
    if timed_out(error):
        return ProviderTimeout(f"{name} gave no answer in time")
    return ProviderUnreachable(f"{name}: the connection was refused or broke")


async def server_sent_events(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The data of each event of a stream, one line each. Raises ProviderBadAnswer for an answer that is no stream."""
    kind = response.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        raise ProviderBadAnswer(f"an answer of the type {kind[:100]!r} in place of a stream")
    rest = b""
    # Not by the client's lines, which takes as long as all else that is done with an event.
    async for piece in response.stream:  # type: ignore[union-attr]
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise UnfitAnswer(f"an event of more than {MAX_LINE_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):  # some servers leave the last line without its end
        yield rest[5:].strip()
