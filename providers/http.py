"""The HTTP clients' ways out: httpx, and httpx2 of the SDKs, over aiohttp's connections.

Their own connections, by httpcore, take several times as much of the processor for each request. An answer is read up
to a size, and only as it is: what comes compressed was not asked for, and may be a bomb.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import httpx2
import orjson
from multidict import CIMultiDict
from yarl import URL

from config import CONNECT_TIMEOUT
from providers.base import ProviderBadAnswer, ProviderError, ProviderForbidden, ProviderTimeout, ProviderUnreachable
from providers.outbound import ForbiddenAddress, Outbound, OutboundResolver

Headers = CIMultiDict[str]
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


class Answer:
    """An answer whose head has come. Raises UnfitAnswer, and the errors of `http`, which is httpx or httpx2."""

    def __init__(self, answer: aiohttp.ClientResponse, http: ModuleType) -> None:
        self._answer = answer
        self._http = http
        self.status = answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return self._answer.raw_headers

    async def read(self) -> bytes:
        """All of the body."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
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

    def release(self) -> None:
        """Let the connection go: to be used again where all was read."""
        self._answer.release()


class Session:
    """Sends requests with the errors of `http`, keeps no cookies, asks no proxy and follows no redirect."""

    def __init__(
        self, http: ModuleType = httpx, verify: ssl.SSLContext | bool = True, outbound: Outbound | None = None
    ) -> None:
        self._http = http
        self._verify = verify
        self._outbound = outbound
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, url: str | URL, headers: Headers, content: bytes | None, waits: aiohttp.ClientTimeout
    ) -> Answer:
        """The answer to a request that is made whole, to be read and released."""
        if self._session is None:  # made where the loop runs
            connector = aiohttp.TCPConnector(
                limit=CONNECTIONS,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                ssl=self._verify,
                resolver=OutboundResolver(self._outbound) if self._outbound else None,
            )
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        try:
            if self._outbound:
                self._outbound.check(str(url))  # an address in numbers is never resolved
            answer = await self._session.request(
                method, url, headers=headers, data=content, allow_redirects=False, timeout=waits
            )
        except (aiohttp.ClientError, ForbiddenAddress, TimeoutError) as error:
            raise _of_httpx(error, self._http) from error
        return Answer(answer, self._http)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Body(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """The body of an answer, for httpx."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.pieces()

    async def aclose(self) -> None:
        self._answer.release()


class _Transport(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):
    """The way out of a client of `http`, which is httpx or httpx2."""

    def __init__(
        self, http: ModuleType, verify: ssl.SSLContext | bool = True, outbound: Outbound | None = None
    ) -> None:
        self._http = http
        self.session = Session(http, verify, outbound)

    async def handle_async_request(self, request: Any) -> Any:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        waits = _waits(request.extensions.get("timeout", {}))
        answer = await self.session.request(
            request.method, str(request.url), make_headers(pairs), request.content or None, waits
        )
        return self._http.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer), request=request)

    async def aclose(self) -> None:
        await self.session.close()


def make_headers(given: Iterable[tuple[str, str]]) -> Headers:
    """Headers of a request that asks for an answer as it is."""
    headers: Headers = CIMultiDict(given)
    headers["Accept-Encoding"] = "identity"
    return headers


def _waits(timeout: dict[str, float | None]) -> aiohttp.ClientTimeout:
    """What httpx and httpx2 call a request's timeouts."""
    return aiohttp.ClientTimeout(
        connect=timeout.get("pool"), sock_connect=timeout.get("connect"), sock_read=timeout.get("read")
    )


def _of_httpx(error: Exception, http: ModuleType) -> Exception:
    """What httpx or httpx2 would have raised."""
    if isinstance(error, TimeoutError):
        kind = http.ReadTimeout
    else:
        refused = isinstance(error, aiohttp.ClientConnectorError | ForbiddenAddress)
        kind = http.ConnectError if refused else http.ReadError
    made: Exception = kind(str(error))
    return made


class SDKClient(httpx2.AsyncClient):
    """For the openai and anthropic SDKs."""

    def __init__(self, outbound: Outbound | None = None) -> None:
        transport = _Transport(httpx2, outbound=outbound)
        super().__init__(transport=transport, trust_env=False)
        self.session = transport.session


def httpx_options(
    timeout: float, verify: ssl.SSLContext | bool, outbound: Outbound | None, http: ModuleType = httpx
) -> dict[str, Any]:
    """What to make an `AsyncClient` of `http` with: `timeout` seconds for each wait of a call, no redirects."""
    return {
        "transport": _Transport(http, verify, outbound),
        "timeout": http.Timeout(timeout, connect=CONNECT_TIMEOUT),
        "trust_env": False,
        "follow_redirects": False,
    }


class Straight:
    """Goes before an SDK's client: its address, headers, credentials and errors, without what it does at each request.

    Retries, hooks and copies of the options, which are off or unused here, took longer than the network.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        client: SDKClient = options["http_client"]
        self._session = client.session
        self._prepared: dict[str, tuple[URL, Headers, aiohttp.ClientTimeout]] = {}

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """The body of the answer to a POST of `body`, or to a GET without one. Raises as `open_stream`."""
        answer = await self.open_stream(path, body)
        try:
            return await answer.read()
        finally:
            answer.release()

    async def open_stream(self, path: str, body: dict[str, Any] | None = None) -> Answer:
        """The answer, to be read and released. Raises the SDK's APIStatusError, httpx2's errors and UnfitAnswer."""
        sdk: Any = self
        url, headers, waits = self._prepared.get(path) or self._prepare(path)
        method, content = ("GET", None) if body is None else ("POST", orjson.dumps(body))
        answer = await self._session.request(method, url, headers, content, waits)
        if 200 <= answer.status < 300:
            return answer
        try:
            said = await answer.read()
        finally:
            answer.release()
        request = httpx2.Request(method, str(url))
        response = httpx2.Response(answer.status, headers=answer.raw_headers, content=said, request=request)
        raise sdk._make_status_error_from_response(response)

    def _prepare(self, path: str) -> tuple[URL, Headers, aiohttp.ClientTimeout]:
        sdk: Any = self
        url = URL(path if "://" in path else f"{sdk.base_url}".rstrip("/") + path)
        given = sdk.auth_headers | sdk.default_headers  # what is to be left out has no text
        headers = make_headers((name, value) for name, value in given.items() if isinstance(value, str))
        self._prepared[path] = url, headers, _waits(sdk.timeout.as_dict())
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
        if isinstance(cause, ForbiddenAddress):
            return ProviderForbidden(f"{name}: base_url {cause}")
        cause = cause.__cause__ or cause.__context__  # an SDK may hide the cause of what it raises
    if timed_out(error):
        return ProviderTimeout(f"{name} gave no answer in time")
    return ProviderUnreachable(f"{name}: the connection was refused or broke")


async def server_sent_events(answer: Answer) -> AsyncIterator[bytes]:
    """The data of each event of a stream, one line each. Raises ProviderBadAnswer for an answer that is no stream."""
    kind = answer.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        raise ProviderBadAnswer("an answer that is no stream of events")
    rest = b""
    async for piece in answer.pieces():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise UnfitAnswer(f"an event of more than {MAX_LINE_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):  # some servers leave the last line without its end
        yield rest[5:].strip()
