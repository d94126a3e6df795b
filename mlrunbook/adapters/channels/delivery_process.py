"""Hands a message to a service from a process of its own, which is killed at the deadline.

No timeout of an HTTP or SMTP library holds against a service that sends a byte now and then, one that sends for ever, or a resolver
that hangs; the end of a process does, and the gateway's memory and descriptors stay out of it. A process is kept for the next message.
It talks by lines of JSON over its standard input and output; it ends when its input does, so it does not outlive the gateway.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any, Literal

from mlrunbook.adapters.channels import pagerduty
from mlrunbook.adapters.channels.delivery import Delivery, deliver
from mlrunbook.domain.errors import Refused, RunbookError, Transient
from mlrunbook.ports import Message

PAGE_DEADLINE_S = 15.0  # within the 20 s for which a dispatcher holds a page
DEADLINE_S = 45.0  # within the 60 s for which it holds everything else
MEMORY_BYTES = 2 << 30  # address space: an answer without end fails here, not in the gateway
MAX_IDLE = 4
WARM = 2
LAST_S = 5.0
MAX_ANSWER_BYTES = 1 << 20

Action = Literal["trigger", "acknowledge", "resolve"]


class _Process:
    def __init__(self) -> None:
        argv = [sys.executable, "-m", __name__]
        # A session of its own: Ctrl-C in the terminal is for the gateway, which lets a delivery end.
        self._child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def ask(self, request: bytes, *, until: float) -> bytes:
        """The answer's line. TimeoutError at the deadline, OSError when the process died."""
        assert self._child.stdin
        assert self._child.stdout
        self._write(self._child.stdin.fileno(), request, until)
        answer, out = bytearray(), self._child.stdout.fileno()
        while not answer.endswith(b"\n"):
            self._wait(out, select.POLLIN, until)
            got = os.read(out, 65536)
            answer += got
            if not got or len(answer) > MAX_ANSWER_BYTES:
                raise ConnectionError("the process that delivers died")
        return bytes(answer)

    def _write(self, to: int, request: bytes, until: float) -> None:
        os.set_blocking(to, False)
        rest = memoryview(request)
        while rest:
            self._wait(to, select.POLLOUT, until)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(to, rest) :]

    @staticmethod
    def _wait(fd: int, what: int, until: float) -> None:
        look = select.poll()  # takes no descriptor, unlike epoll
        look.register(fd, what)
        if not look.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


class DeliveryProcesses:
    """`deliver` and `settle` may be called by many threads: each uses a process alone. `warm()` starts some ahead of the first page."""

    def __init__(self, *, page_deadline_s: float = PAGE_DEADLINE_S, deadline_s: float = DEADLINE_S) -> None:
        self._page_deadline_s, self._deadline_s = page_deadline_s, deadline_s
        self._idle: list[_Process] = []
        self._lock = threading.Lock()

    def warm(self) -> None:
        for process in [self._take() for _ in range(WARM)]:
            self._put_back(process)

    def deliver(self, message: Message, address: str, *, first_key: str | None = None, action: Action = "trigger") -> Delivery:
        """Transient when the service did not take it in time, Refused when it never will."""
        request = json.dumps({"message": asdict(message), "address": address, "first_key": first_key, "action": action}).encode() + b"\n"
        limit_s = self._page_deadline_s if message.page else self._deadline_s
        try:
            process = self._take()
        except OSError as error:
            raise Transient(f"channel {message.channel}: no process to deliver with ({error.strerror}); tried again") from error
        try:
            answer = json.loads(process.ask(request, until=time.monotonic() + limit_s))
        except BaseException as error:
            process.end()
            if isinstance(error, TimeoutError):
                raise Transient(f"channel {message.channel} did not answer in {limit_s:.0f} s") from None
            if isinstance(error, (OSError, ValueError)):
                raise Transient(f"channel {message.channel}: the delivery broke off ({type(error).__name__})") from None
            raise
        self._put_back(process)
        if "sent" in answer:
            return Delivery(**answer["sent"])
        failed = (Refused if answer["refused"] else Transient)(answer["error"])
        for note in answer.get("notes", ()):
            failed.add_note(note)
        raise failed

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _take(self) -> _Process:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return _Process()
            if process.alive:
                return process
            process.end()

    def _put_back(self, process: _Process) -> None:
        with self._lock:
            if len(self._idle) < MAX_IDLE:
                self._idle.append(process)
                return
        process.end()


def _serve(carry_out: Callable[..., dict[str, Any]]) -> None:
    requests: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    with os.fdopen(os.dup(1), "wb") as out:  # what a library prints must not look like an answer
        os.dup2(2, 1)
        while (row := requests.get()) is not None:
            request = json.loads(row)
            message = Message(**request["message"])
            try:
                answer: dict[str, Any] = {"sent": carry_out(message, request["address"], request["first_key"], request["action"])}
            except RunbookError as error:
                answer = {"error": str(error), "refused": isinstance(error, Refused), "notes": getattr(error, "__notes__", [])}
            except Exception as error:  # its text may hold the address
                answer = {"error": f"channel {message.channel}: the delivery failed ({type(error).__name__})", "refused": False}
            out.write(json.dumps(answer).encode() + b"\n")
            out.flush()


def _read(requests: SimpleQueue[bytes | None]) -> None:
    """Until the gateway has gone: a delivery under way may then end, one that hangs is not left behind."""
    for row in sys.stdin.buffer:
        requests.put(row)
    requests.put(None)
    time.sleep(LAST_S)
    os._exit(1)


def _carry_out(message: Message, address: str, first_key: str | None, action: Action) -> dict[str, Any]:
    if action != "trigger":
        return Delivery(pagerduty.SCHEME, pagerduty.send(message, address, action))._asdict()
    return deliver(message, address, first_key=first_key)._asdict()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    _serve(_carry_out)
