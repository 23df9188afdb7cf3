import asyncio
import concurrent.futures
import socket
import threading
import time

import pytest

from continualcode.backends import TinkerBackend
from continualcode.backends import line as line_module
from continualcode.backends.line import Line
from continualcode.errors import BackendError, BackendUnavailableError, ConfigError


@pytest.fixture
def free_port():
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class OnlyResult:
    def result(self):
        return 7


def _done(value):
    future = concurrent.futures.Future()
    future.set_result(value)
    return future


async def _coroutine(value):
    return value


@pytest.mark.parametrize(
    "pending",
    [
        lambda: 7,
        lambda: _done(7),
        lambda: _done(_done(7)),
        lambda: _coroutine(7),
        lambda: _coroutine(_done(7)),
        OnlyResult,
    ],
    ids=["value", "concurrent", "future of a future", "coroutine", "coroutine of a future", "blocking"],
)
async def test_a_line_waits_for_every_kind_of_future(pending):
    assert await Line().wait(pending()) == 7


async def test_a_cancelled_wait_cancels_the_request_beneath():
    pending = concurrent.futures.Future()
    waiting = asyncio.ensure_future(Line().wait(pending))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pending.cancelled()


async def test_a_call_that_blocks_for_ever_can_be_left():
    hang = threading.Event()
    waiting = asyncio.ensure_future(Line().call(hang.wait, 60))
    await asyncio.sleep(0.01)
    waiting.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.monotonic() - began < 5
    hang.set()


async def test_a_request_the_client_dropped_is_an_error_and_no_cancellation():
    pending = concurrent.futures.Future()
    pending.cancel()
    with pytest.raises(BackendUnavailableError, match="dropped"):
        await Line().wait(pending)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
async def test_what_a_client_raises_is_translated_and_kept_as_the_cause(error):
    pending = concurrent.futures.Future()
    pending.set_exception(error("broken"))
    with pytest.raises(BackendError, match="broken") as caught:
        await Line().wait(pending)
    assert type(caught.value.__cause__) is error


async def test_what_a_client_raises_at_once_is_translated_too():
    def refuse(_):
        raise ValueError("broken at once")

    with pytest.raises(BackendError, match="broken at once"):
        await Line().ask(refuse, 1)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="http://localhost:8000"):
        Line(url)


async def test_nobody_at_the_address_is_told_at_once_and_says_what_to_do(official_client, free_port):
    began = time.monotonic()
    with pytest.raises(
        BackendUnavailableError, match=rf"nobody answers at http://127.0.0.1:{free_port} .*is the server running"
    ):
        await TinkerBackend.connect(official_client(f"http://127.0.0.1:{free_port}"), model_name="bigram")
    assert time.monotonic() - began < 3


async def test_a_server_that_dies_during_a_request_is_told_within_fifteen_seconds(
    bigram_service, wire_server, official_client
):
    server = wire_server(bigram_service())
    backend = await TinkerBackend.connect(official_client(server.url), model_name="bigram")
    server.never.add("asample")
    asking = asyncio.ensure_future(backend.sampler.logprobs((1, 2), (3, 4)))
    await asyncio.sleep(0.2)
    server.die()
    began = time.monotonic()
    with pytest.raises(BackendUnavailableError, match="nobody answers"):
        await asking
    assert time.monotonic() - began < 15


async def test_a_server_that_died_between_requests_is_told_too(bigram_service, wire_server, official_client):
    server = wire_server(bigram_service())
    backend = await TinkerBackend.connect(official_client(server.url), model_name="bigram", patience=0.2)
    server.die()
    with pytest.raises(BackendUnavailableError, match="nobody answers"):
        await backend.sampler.logprobs((1, 2), (3, 4))


async def test_a_server_that_accepts_and_says_nothing_counts_as_dead(
    bigram_service, wire_server, official_client, monkeypatch
):
    monkeypatch.setattr(line_module, "_ANSWER_WITHIN", 0.3)
    server = wire_server(bigram_service())
    backend = await TinkerBackend.connect(official_client(server.url), model_name="bigram", patience=0.1)
    server.silent = True
    with pytest.raises(BackendUnavailableError, match=r"within 0.3 s|timed out"):
        await backend.sampler.logprobs((1, 2), (3, 4))


async def test_the_longest_time_to_notice_is_below_fifteen_seconds():
    patience, answer = 3.0, line_module._ANSWER_WITHIN + 0.5
    assert patience + answer + min(patience, 1.0) + answer < 15


async def test_a_slow_answer_is_waited_for_while_the_server_lives(bigram_service, wire_server, official_client):
    server = wire_server(bigram_service())
    backend = await TinkerBackend.connect(official_client(server.url), model_name="bigram", patience=0.1)
    server.never.add("asample")
    asking = asyncio.ensure_future(backend.sampler.logprobs((1, 2), (3, 4)))
    await asyncio.sleep(1.0)
    assert not asking.done()
    assert server.seen.count("healthz") > 3
    server.never.clear()
    assert (await asking).shape == (2,)
    await asyncio.sleep(0.3)  # one may be on its way
    asked = server.seen.count("healthz")
    await asyncio.sleep(0.5)
    assert server.seen.count("healthz") == asked, "nobody waits, nobody asks"


@pytest.mark.parametrize("ticks", range(3))
async def test_a_wait_that_ends_just_as_the_server_answers_ends_the_asking_too(monkeypatch, ticks):
    loop, asking = asyncio.get_running_loop(), asyncio.Event()
    questions: list[asyncio.Future[None]] = []

    def asked(function) -> asyncio.Future[None]:
        questions.append(loop.create_future())
        asking.set()
        return questions[-1]

    monkeypatch.setattr(line_module, "_in_thread", asked)
    awaited = loop.create_future()
    waiting = asyncio.ensure_future(Line("http://127.0.0.1:9", patience=0).wait(awaited))
    await asking.wait()
    awaited.set_result("done")
    for _ in range(ticks):
        await asyncio.sleep(0)
    questions[0].set_result(None)
    assert await waiting == "done"
    so_far = len(questions)
    await asyncio.sleep(0.05)
    assert len(questions) == so_far


async def test_a_request_that_never_ends_can_be_cancelled_and_the_next_one_works(
    bigram_service, wire_server, official_client
):
    server = wire_server(bigram_service())
    backend = await TinkerBackend.connect(official_client(server.url), model_name="bigram")
    server.never.add("asample")
    asking = asyncio.ensure_future(backend.sampler.logprobs((1, 2), (3, 4)))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert time.monotonic() - began < 5
    server.never.clear()
    assert (await backend.sampler.logprobs((1, 2), (3, 4))).shape == (2,)


async def test_a_proxy_with_nobody_behind_it_is_no_answer():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with proxy:
        url = "http://{}:{}".format(*proxy.sockets[0].getsockname())
        with pytest.raises(BackendUnavailableError, match="HTTP 502"):
            await Line(url, patience=0.1).confirm()
