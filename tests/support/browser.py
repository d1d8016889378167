"""A real Chromium for tests of pages: found, or on Debian installed as the tests' other Debian packages are."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from lab.cluster import ROOT

VARIABLE = "DYNALIGN_TEST_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """Path of a Chromium; as root on Debian it is installed. Fails the test where there is none."""
    if named := os.environ.get(VARIABLE):
        return named
    if (found := _on_the_path()) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run([ROOT / "tests/cluster/debian.sh", "chromium"], check=True)
        found = _on_the_path()
    if found is None:
        pytest.fail(f"this test needs Chromium: install it (apt-get install chromium), or set {VARIABLE} to its path")
    return found


def _on_the_path() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """A headless Chromium. Root may not have its sandbox; the pages are the tests' own."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options, timeout=120_000)
        try:
            yield browser
        finally:
            browser.close()
