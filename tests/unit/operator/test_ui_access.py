"""Whom the live page's server answers: a table of requests as browsers, attackers and other programs send them."""

from dataclasses import replace
from http import HTTPStatus

import pytest

from dynalign_operator.ui.access import Asked, Keys, opens, refuse

KEYS = Keys()
PAGE = Asked(path="/api/runs", host="127.0.0.1:8711", fetch_site="same-origin", cookie=KEYS.session)
CHANGE = replace(PAGE, method="POST", path="/api/change", origin="http://127.0.0.1:8711", form=KEYS.form)


@pytest.mark.parametrize(
    "asked",
    [
        PAGE,
        CHANGE,
        replace(PAGE, method="HEAD"),
        replace(PAGE, host="localhost:8711"),
        replace(PAGE, host="[::1]:8711"),
        replace(PAGE, host="127.0.0.1:9000"),
        replace(PAGE, path="/", fetch_site="none"),
        replace(PAGE, fetch_site=""),
        replace(CHANGE, host="localhost:9000", origin="http://localhost:9000"),
    ],
    ids=[
        "the page looks",
        "the page changes",
        "head",
        "localhost",
        "IPv6",
        "another port of a tunnel",
        "a typed address",
        "a browser without Sec-Fetch-Site",
        "a change through a tunnel",
    ],
)
def test_the_page_and_its_user_are_answered(asked: Asked) -> None:
    assert refuse(asked, KEYS) is None


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (403, replace(PAGE, host="evil.example:8711")),
        (403, replace(PAGE, host="127.0.0.1.evil.example")),
        (403, replace(PAGE, host="evil.example@127.0.0.1")),
        (403, replace(PAGE, host="127.0.0.1:8711/x")),
        (403, replace(PAGE, host="127.0.0.1:port")),
        (403, replace(PAGE, host="")),
        (405, replace(PAGE, method="DELETE")),
        (405, replace(PAGE, method="OPTIONS")),
        (403, replace(PAGE, fetch_site="cross-site")),
        (403, replace(PAGE, fetch_site="same-site")),
        (401, replace(PAGE, cookie="")),
        (401, replace(PAGE, cookie=KEYS.session[:-1])),
        (401, replace(PAGE, cookie=KEYS.token)),
        (401, replace(PAGE, cookie="\udcff")),
        (403, replace(CHANGE, origin="")),
        (403, replace(CHANGE, origin="null")),
        (403, replace(CHANGE, origin="http://evil.example")),
        (403, replace(CHANGE, origin="http://127.0.0.1:9999")),
        (403, replace(CHANGE, origin="https://127.0.0.1:8711")),
        (403, replace(CHANGE, form="")),
        (403, replace(CHANGE, form=KEYS.session)),
        (401, replace(CHANGE, cookie="")),
    ],
    ids=[
        "a name that leads to loopback (DNS rebinding)",
        "a name that begins like it",
        "user information",
        "a path in Host",
        "no number for a port",
        "no Host",
        "another method",
        "a preflight",
        "a page of another site",
        "a page on another port, which has the cookie",
        "no cookie",
        "a part of the cookie",
        "the token as cookie",
        "bytes that are no text",
        "a change without Origin",
        "a change from a sandboxed frame",
        "a change from another site",
        "a change from another port",
        "a change from another scheme",
        "a change without the second token",
        "a change with another secret as second token",
        "a change without cookie",
    ],
)
def test_everyone_else_is_refused(status: int, asked: Asked) -> None:
    refusal = refuse(asked, KEYS)
    assert refusal is not None
    assert refusal.status == HTTPStatus(status)
    assert refusal.sentence.endswith(".")


def test_the_token_opens_the_page_and_nothing_else() -> None:
    first = Asked(host="127.0.0.1:8711", fetch_site="cross-site", token=KEYS.token)
    assert opens(first, KEYS)
    assert refuse(first, KEYS, opened=True) is None
    assert not opens(replace(first, path="/api/runs"), KEYS)
    assert not opens(replace(first, token=""), KEYS)
    assert not opens(replace(first, token=KEYS.session), KEYS)
    assert refuse(replace(first, method="POST"), KEYS, opened=True) is not None
    assert refuse(replace(first, host="evil.example"), KEYS, opened=True) is not None


def test_every_secret_is_another() -> None:
    secrets = [getattr(keys, name) for keys in (Keys(), Keys()) for name in ("token", "opening", "session", "form")]
    assert len(set(secrets)) == 8
    assert min(map(len, secrets)) >= 40
