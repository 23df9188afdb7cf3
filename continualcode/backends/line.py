"""The line to one Tinker service: calls, futures of every SDK version, dead servers, errors. Knows nothing of models."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import inspect
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import tinker
from tinker.lib.retryable_exception import RetryableException

from continualcode.errors import (
    BackendError,
    BackendUnavailableError,
    ConfigError,
    ContextLengthError,
    ContinualCodeError,
)

HOSTED_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
_ANSWER_WITHIN = 4.0
_GATEWAY_ALONE = (502, 504)  # a proxy answered, and what it said is that nobody is behind it
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window)|max(imum)?[ _](model[ _]len|sequence|context)|too (long|many tokens)", re.IGNORECASE
)
_WRAPPING = re.compile(r"^Request failed: (.*) for self\.request_id=.*$", re.DOTALL)


class Line:
    """How one service is called and waited for.

    Every wait can be cancelled. While anything waits, the service is asked every `patience` seconds whether it lives
    (any HTTP answer will do); two unanswered questions end the wait with BackendUnavailableError: after at most
    2 * patience + 8 seconds, and never longer than 14 at the default. A line without a URL, to a service in this
    process, asks nothing. The SDK's own retries go on beneath, for minutes.
    """

    def __init__(self, url: str | None = None, patience: float = 3.0) -> None:
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
            raise ConfigError(f"base_url {url!r} is no http or https address; it looks like http://localhost:8000")
        self.url = url
        self._patience = patience
        self._waiting = 0
        self._watch: asyncio.Task[None] | None = None

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Calls what may block (making clients does, in every SDK) on a thread of its own, and waits for what it gives."""
        return await self.wait(_in_thread(lambda: function(*args, **kwargs)))

    async def ask(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Calls at once, on this thread and in order, what only submits; and waits for what it gives."""
        with translated():
            pending = function(*args, **kwargs)
        return await self.wait(pending)

    async def wait(self, pending: Any) -> Any:
        """What a future of any kind gives, or a value that is none. Errors are those of continualcode.errors."""
        with translated():
            return await self._watched(_quiet(asyncio.ensure_future(_value(pending))))

    async def confirm(self) -> None:
        """Raises BackendUnavailableError when the service leaves two questions unanswered."""
        if self.url is None or await self._silence() is None:
            return
        await asyncio.sleep(min(self._patience, 1.0))
        if (problem := await self._silence()) is not None:
            raise BackendUnavailableError(
                f"nobody answers at {self.url} ({problem}); is the server running, and base_url right? "
                "Conversation, files and saved weights are intact."
            )

    async def _watched(self, value: asyncio.Task[Any]) -> Any:
        watch = self._enter()
        try:
            await asyncio.wait([task for task in (value, watch) if task], return_when=asyncio.FIRST_COMPLETED)
            if not value.done() and watch is not None:
                watch.result()
            if value.cancelled():
                raise BackendUnavailableError("the service dropped the request; ask again")
            return value.result()
        finally:
            value.cancel()
            self._leave()

    def _enter(self) -> asyncio.Task[None] | None:
        self._waiting += 1
        if self.url is not None and (self._watch is None or self._watch.done()):
            self._watch = _quiet(asyncio.ensure_future(self._ask_for_ever()))
        return self._watch

    def _leave(self) -> None:
        self._waiting -= 1
        if self._waiting == 0 and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _ask_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._patience)
            await self.confirm()

    async def _silence(self) -> str | None:
        """Why there was no answer, or None when there was one."""
        try:
            # not wait_for: before Python 3.12 it swallows a cancellation that meets the answer, and the watch never ends
            async with asyncio.timeout(_ANSWER_WITHIN + 0.5):
                silence: str | None = await _in_thread(lambda: _ask(f"{self.url}/api/v1/healthz"))
                return silence
        except TimeoutError:
            return f"no answer within {_ANSWER_WITHIN:g} s"


def url_of(service: Any) -> str | None:
    """Where an official client's service lives; None for one in this process."""
    if not isinstance(service, tinker.ServiceClient):
        return None
    kept = vars(service)  # the SDK publishes its address nowhere; 0.24 keeps it in another place than 0.38
    given = kept.get("_base_url") or kept.get("_holder_kwargs", {}).get("base_url")
    return str(given or os.environ.get("TINKER_BASE_URL") or HOSTED_URL).rstrip("/")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what a Tinker client raises into the errors of continualcode."""
    try:
        yield
    except ContinualCodeError:
        raise
    except (tinker.TinkerError, RetryableException, ValueError, RuntimeError, OSError) as error:
        raise _translation(error) from error


def _translation(error: Exception) -> ContinualCodeError:
    text = said(error)
    match error:
        case tinker.AuthenticationError() | tinker.PermissionDeniedError():
            return ConfigError(f"the service refuses the API key ({text}); set TINKER_API_KEY to a valid one (tml-...)")
        case tinker.APIConnectionError() | TimeoutError():
            return BackendUnavailableError(f"the connection to the service broke: {text}")
        case tinker.InternalServerError():
            return BackendUnavailableError(f"the service is in trouble ({text}); try again later")
        case _ if "api_key" in text.lower() or "api key" in text.lower():
            return ConfigError(f"no usable API key: {text}")
        case _ if _TOO_LONG.search(text):
            return ContextLengthError(f"the service says: {text}; use a shorter conversation or fewer max_tokens")
        case _:
            return BackendError(f"the service could not do it: {text}")


def said(error: BaseException) -> str:
    """What the service said, without what the SDK wraps around it."""
    text = str(error) or type(error).__name__
    if (wrapped := _WRAPPING.match(text)) is not None:
        return wrapped[1]
    return text


@runtime_checkable
class _Resulting(Protocol):
    def result(self) -> Any: ...


async def _value(pending: Any) -> Any:
    """Waits for an APIFuture or coroutine, a concurrent future, or anything with a blocking .result(); in turn, for futures of futures."""
    if inspect.isawaitable(pending):
        return await _value(await pending)
    if isinstance(pending, concurrent.futures.Future):
        return await _value(await asyncio.wrap_future(pending))
    if isinstance(pending, _Resulting):
        return await _value(await _in_thread(pending.result))
    return pending


def _quiet(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """The task, whose error nobody is told of when the wait for it is over."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _in_thread(function: Callable[[], Any]) -> asyncio.Future[Any]:
    """Runs on a daemon thread, so that a call that hangs for ever hinders neither cancelling nor leaving the program."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # handed on, whatever it is, to who waits
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="continualcode-call", daemon=True).start()
    return asyncio.wrap_future(future)


def _ask(url: str) -> str | None:
    try:
        urllib.request.urlopen(url, timeout=_ANSWER_WITHIN).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return f"HTTP {answer.code}" if answer.code in _GATEWAY_ALONE else None
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None
