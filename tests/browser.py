"""A headless Chromium that opens files and says what it finds, spoken to over a pipe (the DevTools protocol)."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
SECONDS = 120.0  # for one answer, on a busy machine

_FOUND = """({
    shown: innerWidth,
    wide: document.documentElement.scrollWidth,
    beyond: [...document.querySelectorAll('body *')]
        .filter(one => !one.closest('.scroll, svg') && one.getBoundingClientRect().right > innerWidth + 1)
        .map(one => one.outerHTML.slice(0, 80)),
    pictures: [...document.querySelectorAll('svg, img')].filter(one => one.getClientRects().length).length,
    undescribed: [...document.querySelectorAll('svg, img')]
        .filter(one => !one.getAttribute('aria-label') && !one.getAttribute('alt'))
        .map(one => one.outerHTML.slice(0, 80)),
})"""


class Browser:
    """Raises TimeoutError where the browser does not answer."""

    def __init__(self, profile: Path) -> None:
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe"
        command = f'exec "{CHROMIUM}" {options} --user-data-dir="{profile}" 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(["bash", "-c", command], pass_fds=(read, write), stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        self._number, self._buffer, self._events = 0, b"", list[dict[str, Any]]()

    def look(self, page: Path, width: int) -> dict[str, Any]:
        """What a page shows on a screen so many pixels wide: its own width, its pictures, and what went wrong in it."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable", session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", session, **size)
        self._events.clear()
        self._ask("Page.navigate", session, url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        found = self._ask("Runtime.evaluate", session, expression=_FOUND, returnByValue=True)["result"]["value"]
        wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        found["errors"] = [str(event["params"]) for event in self._events if event["method"] in wrong]
        self._ask("Target.closeTarget", targetId=target)
        return found

    def close(self) -> None:
        """End the browser and its children."""
        self._ask("Browser.close")
        self._process.wait(SECONDS)
        os.close(self._write)
        os.close(self._read)

    def _ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._events += [answer] if "method" in answer else []
        assert "result" in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._read, 1 << 16) if ready else b""
            if not data:
                raise TimeoutError("the browser does not answer")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)
