"""One thread that does an engine's work in the order it was asked for; knows nothing of what the work is."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

from tinker.lib.public_interfaces.api_future import AwaitableConcurrentFuture

T = TypeVar("T")

_exiting = threading.Event()
_serving: dict[threading.Thread, queue.SimpleQueue[Job[Any] | None]] = {}


class Job(Future[T]):
    """A piece of work and its result. Cancelled before it begins it never runs; later it is asked to stop.

    `work` is given a function that tells whether a stop was asked for; work that changes weights ignores it.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], T]) -> None:
        super().__init__()
        self._work = work
        self._stop = threading.Event()

    def cancel(self) -> bool:
        self._stop.set()
        return super().cancel()

    def run(self) -> None:
        if not self.set_running_or_notify_cancel():
            return
        try:
            result = self._work(self._asked_to_stop)
        except BaseException as error:  # the thread must outlive any job; the error is the caller's
            self.set_exception(error)
        else:
            self.set_result(result)
        finally:
            del self._work

    def _asked_to_stop(self) -> bool:
        return self._stop.is_set() or _exiting.is_set()


class ClientFuture(AwaitableConcurrentFuture[T], Generic[T]):
    """A future of a client that may also be used as the client, as the SDK's may: attributes wait for it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.result(), name)


class Worker:
    """Runs jobs one after another on a daemon thread, which ends when the worker is no longer referenced, or with the
    program: what runs is asked to stop and waited for, what has not begun is cancelled.

    `before` is called on that thread before each job.
    """

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        thread = threading.Thread(target=_serve, args=(self._jobs, before), name="continualcode-local", daemon=True)
        _serving[thread] = self._jobs
        thread.start()
        self.close = weakref.finalize(self, self._jobs.put, None)

    def submit(self, work: Callable[[Callable[[], bool]], T]) -> AwaitableConcurrentFuture[T]:
        return AwaitableConcurrentFuture(self._enqueue(work))

    def submit_client(self, work: Callable[[Callable[[], bool]], T]) -> ClientFuture[T]:
        return ClientFuture(self._enqueue(work))

    def _enqueue(self, work: Callable[[Callable[[], bool]], T]) -> Job[T]:
        if not self.close.alive:
            raise RuntimeError("the ServiceClient is closed")
        job = Job(work)
        self._jobs.put(job)
        return job


def stop_if_asked(stop: Callable[[], bool]) -> None:
    """Raises CancelledError when the job's future was cancelled."""
    if stop():
        raise CancelledError


def _serve(jobs: queue.SimpleQueue[Job[Any] | None], before: Callable[[], None]) -> None:
    while (job := jobs.get()) is not None:
        if _exiting.is_set():
            job.cancel()
        before()
        job.run()
        del job
    del _serving[threading.current_thread()]


@atexit.register
def _end_all() -> None:
    """Python ends a daemon thread where it next wants the interpreter; within torch that aborts the whole process."""
    _exiting.set()
    for thread, jobs in list(_serving.items()):
        jobs.put(None)
        thread.join()
