"""A headless Chromium that tests talk to through pipes, in the DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""What the program may be called."""

SECONDS = 60.0
"""How long an answer may take, on a machine that is busy."""


def find_chromium() -> str | None:
    """The path of the program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page in a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._numbers = itertools.count(1)
        self._unread = b""
        self._session: str | None = None
        self.logged: list[str] = []
        """Errors and messages of the console."""

    def open(self, path: Path) -> None:
        """Opens a file."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=1200, height=900,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        self.send("Page.navigate", url=path.resolve().as_uri())

    def value(self, expression: str) -> Any:
        """The value of an expression in JavaScript."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := self.value(expression):
                return found
            time.sleep(0.05)
        raise TimeoutError(f"{expression}; the console: {self.logged}")

    def move_to(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def send(self, method: str, **parameters: Any) -> Any:
        """Sends a command and returns its result."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._log(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._answers], [], [], SECONDS)[0], "Chromium does not answer."
            part = os.read(self._answers, 2**16)
            assert part, "Chromium ended."
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _log(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.logged.append(f"error: {given['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning"):
                self.logged.append(f"{given['type']}: {given['args']}")
            case "Network.requestWillBeSent":
                self.logged.append(f"request: {given['request']['url']}")


@contextlib.contextmanager
def chromium(program: str, folder: Path) -> Iterator[Page]:
    """Yields a page in a browser that ends with the block.

    Args:
        program: The browser.
        folder: An empty folder for its profile.
    """
    from_here, commands = os.pipe()
    answers, to_here = os.pipe()

    def pipes() -> None:
        # The protocol's pipes are 3 and 4. Copied above first, should they be these already.
        high = [os.dup2(one, 100 + one) for one in (from_here, to_here)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             "--disable-background-networking", f"--user-data-dir={folder}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=pipes, close_fds=False,
        )  # fmt: skip
    for one in (from_here, to_here):
        os.close(one)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(SECONDS)
        for one in (commands, answers):
            os.close(one)
