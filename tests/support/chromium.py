"""A headless Chromium over its own protocol: it opens a file and reports requests, messages and layout."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Tab:
    """One page of a running browser."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire
        self._number = 0
        self.events: list[dict[str, Any]] = []

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that arrive meanwhile are kept."""
        self._number += 1
        await self._wire.send_json({"id": self._number, "method": method, "params": params})
        while True:
            told = await self._wire.receive_json(timeout=30)
            if told.get("id") == self._number:
                assert "error" not in told, told
                return dict(told["result"])
            self.events.append(told)

    async def open(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        before = len(self.of("Page.loadEventFired"))
        await self.ask("Page.navigate", url=url)
        while len(self.of("Page.loadEventFired")) == before:
            self.events.append(await self._wire.receive_json(timeout=30))

    async def value(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        told = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def show(self, scheme: str, media: str = "screen") -> bool:
        """Be a light or dark screen, or paper."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        return True

    async def look(self, scheme: str = "light", width: int = 900, height: int = 1200, *, mobile: bool = False) -> bytes:
        """Return the whole page as a PNG; on a mobile device bars of scrolling take no room."""
        await self.show(scheme)
        await self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                       mobile=mobile)  # fmt: skip
        told = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(told["data"])

    async def printed(self) -> bytes:
        """Return the page as it is printed: a PDF."""
        told = await self.ask("Page.printToPDF", printBackground=False)
        return base64.b64decode(told["data"])

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [e["params"] for e in self.events if e.get("method") == method]


@contextlib.asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """Start a browser of its own, and stop it again."""
    import aiohttp

    assert CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
             "--disable-background-networking", f"--user-data-dir={home}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = await _port(Path(home) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                    pages = [p for p in await reply.json() if p["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as wire:
                    made = Tab(wire)
                    for domain in ("Page", "Network", "Log", "Runtime"):
                        await made.ask(f"{domain}.enable")
                    yield made
        finally:
            browser.terminate()
            browser.wait(10)


async def _port(file: Path) -> int:
    for _ in range(300):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(file.read_text().splitlines()[0])
        await asyncio.sleep(0.1)
    raise AssertionError("Chromium did not start")
