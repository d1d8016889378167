"""A page in a real browser with everything that it complained about and asked for."""

import json
from dataclasses import dataclass, field
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

PATIENCE = 120_000
"""Milliseconds that a page may take on a busy machine."""
WIDE, PHONE = 1440, 390
Scheme = Literal["light", "dark"]


@dataclass
class Opened:
    """An open page."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    @property
    def serious_findings(self) -> str:
        """What axe finds that is serious or critical, with the first element of each; empty where that is nothing."""
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        found = Axe().run(self.page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        return json.dumps(serious, indent=1) if serious else ""


def open_page(browser: Browser, address: str, width: int = WIDE, scheme: Scheme = "light") -> Opened:
    """A page in a browser of its own, which knows no cookie yet."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    opened = Opened(page)
    page.on("console", lambda message: opened.complaints.append(message.text))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(address)
    return opened
