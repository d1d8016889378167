"""The list and the page of a run of `dynalign ui`, opened in Chromium."""

from urllib.parse import quote

from playwright.sync_api import Browser, expect

from support.opened_page import WIDE, Opened, Scheme, open_page
from support.ui_server import UiServer


def open_list(browser: Browser, server: UiServer, width: int = WIDE, scheme: Scheme = "light") -> Opened:
    opened = open_page(browser, server.address, width, scheme)
    expect(opened.page.locator(".entry").first).to_be_visible()
    return opened


def open_run(browser: Browser, server: UiServer, key: str, width: int = WIDE, scheme: Scheme = "light") -> Opened:
    opened = open_list(browser, server, width, scheme)
    opened.page.goto(f"{server.origin}/#/run/{quote(key, safe='')}")
    expect(opened.page.locator(".said").first).to_be_visible()
    return opened
