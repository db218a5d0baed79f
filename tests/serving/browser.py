"""Headless Chromium, driven over a pipe by its DevTools protocol. Needs no package."""

import base64
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe"


class Browser:
    """One page of a browser.

    `asked`: every address that it asked for. `errors`: of its script, and what its policy forbade.
    """

    def __init__(self, profile: Path):
        to_browser, self.outgoing = os.pipe()
        self.incoming, from_browser = os.pipe()
        command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
        # The protocol's pipe is on the file descriptors 3 (to the browser) and 4 (from it).
        pipes = [(os.POSIX_SPAWN_DUP2, to_browser, 3), (os.POSIX_SPAWN_DUP2, from_browser, 4)]
        silence = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
        actions = [*pipes, silence]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=actions)
        os.close(to_browser)
        os.close(from_browser)
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        self.asked: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Log", "Network", "Page", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Return the browser's answer; note what it tells meanwhile."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.outgoing, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                part = os.read(self.incoming, 1 << 20)
                if not part:
                    raise EOFError("the browser has ended")
                self.rest += part
            told, self.rest = self.rest.split(b"\0", 1)
            told = json.loads(told)
            if told.get("method") == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            if told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(told["params"]["exceptionDetails"]["text"])
            if told.get("method") == "Log.entryAdded":
                entry = told["params"]["entry"]
                self.errors += [entry["text"]] if entry["source"] == "security" else []
            if told.get("id") == number:
                if "error" in told:
                    raise ValueError(told["error"])
                return told["result"]

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression; of a promise, what it comes to."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise ValueError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> Any:
        """Return the value of an expression once it is true."""
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > until:
                raise TimeoutError(script)
            time.sleep(0.02)
        return value

    def show(self, width: int, height: int, scheme: str = "light") -> None:
        """Be a screen of this size; a narrow one is a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({url!r})")

    def click(self, selector: str) -> None:
        """Press the middle of the first element that matches, with the mouse."""
        x, y = self.middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            event = {"type": kind, "x": x, "y": y, "button": button, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", **event)

    def tap(self, selector: str) -> None:
        """Touch it, with a finger."""
        x, y = self.middle(selector)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def middle(self, selector: str) -> list[float]:
        """Return where the middle of the first element that matches is, having scrolled to it."""
        return self.run(
            f"(() => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const r = e.getClientRects()[0];"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in a field by typing."""
        self.click(selector)
        self.run(f"document.querySelector({selector!r}).select()")
        self.call("Input.insertText", text=text)

    def picture(self, whole: bool = True) -> bytes:
        """Return a PNG of the page, or of what is on the screen."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])

    def close(self) -> None:
        self.session = None
        self.call("Browser.close")
        os.waitpid(self.process, 0)
        os.close(self.outgoing)
        os.close(self.incoming)
