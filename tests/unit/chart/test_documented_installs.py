"""Every helm install and upgrade of the pages sets values that the chart's schema takes."""

from typing import Any

import pytest

from support.chart import run_helm
from support.page_marks import command_blocks
from support.pages import Block

CHART = "charts/dynalign"
WITHOUT_CHART = ("--create-namespace", "--wait", "--reuse-values")
"""Options that rendering does not have, and that set no value."""
INSTALLS = [
    (block, words)
    for block in command_blocks()
    for words in block.commands()
    if words[:1] == ["helm"] and words[1] in ("install", "upgrade") and CHART in words
]


def rendering(words: list[str]) -> list[str]:
    """`helm template` with the release, the chart and the values of a command; files of the reader's are left out."""
    _, _, *arguments = " ".join(words).replace(" , ", ",").split()  # a comma is a word of its own to `Block.commands`
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in ("-f", "--values"):
            next(rest)
        elif word not in WITHOUT_CHART:
            kept.append(word)
    return ["template", *kept]


def named(case: Any) -> str:
    return str(case) if isinstance(case, Block) else ""


@pytest.mark.parametrize(("block", "words"), INSTALLS, ids=named)
def test_the_chart_takes_what_a_page_sets(block: Block, words: list[str]) -> None:
    done = run_helm(rendering(words))
    assert done.returncode == 0, f"{block}: {done.stderr}"


def test_the_pages_install_and_upgrade() -> None:
    assert {words[1] for _, words in INSTALLS} == {"install", "upgrade"}
