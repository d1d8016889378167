"""CHANGELOG.md: its sections, and closing the one that is open (https://keepachangelog.com/en/1.1.0/)."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Final

KINDS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""Headings within a version, in this order."""

UNRELEASED: Final = "Unreleased"
_VERSION_HEADING: Final = re.compile(r"^## (\S+)(?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
_KIND_HEADING: Final = re.compile(r"^### (.+)$", re.MULTILINE)


def versions(text: str) -> list[str]:
    """Versions that have a section, newest first, the open one included."""
    return [match[1] for match in _VERSION_HEADING.finditer(text)]


def section(text: str, version: str) -> str:
    """What the changelog says about a version, without its heading; empty where it has no section."""
    headings = list(_VERSION_HEADING.finditer(text))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == version:
            return text[heading.end() : following.start() if following else len(text)].strip()
    return ""


def find_faults(text: str) -> Iterator[str]:
    """One sentence for everything that does not follow the format."""
    if (found := versions(text)) and found[0] != UNRELEASED:
        yield f"the first section is {found[0]}, not {UNRELEASED}"
    for heading in _VERSION_HEADING.finditer(text):
        if heading[1] != UNRELEASED and heading[2] is None:
            yield f"{heading[1]} has no date; write: ## {heading[1]} - YYYY-MM-DD"
        kinds = _KIND_HEADING.findall(section(text, heading[1]))
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            yield f"{heading[1]} has the headings {unknown}; allowed are {', '.join(KINDS)}"
        elif kinds != [kind for kind in KINDS if kind in kinds]:
            yield f"{heading[1]} has {', '.join(kinds)}; each at most once, in the order {', '.join(KINDS)}"


def close_section(text: str, version: str, day: date) -> str:
    """The changelog with a dated section for what was unreleased, and an empty open one. Raises ValueError."""
    if version in versions(text):
        raise ValueError(f"CHANGELOG.md has a section for {version} already")
    if not section(text, UNRELEASED):
        raise ValueError("CHANGELOG.md has nothing under Unreleased: there is nothing to release")
    heading = f"## {UNRELEASED}"
    return text.replace(heading, f"{heading}\n\n## {version} - {day.isoformat()}", 1)
