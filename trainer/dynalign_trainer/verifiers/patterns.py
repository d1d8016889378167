"""Regular expressions of the run's author, by RE2: matching takes time linear in the text, whatever the pattern.

Python's `re` and its like backtrack: `(a+)+$` takes them for ever, and a time limit would make a reward depend on the
machine's load. RE2 has no lookaround and no backreferences; its syntax is that of patterns in Kubernetes.
"""

from typing import Any

import re2

from dynalign_contract.errors import BadConfigError

_MEMORY = 8 << 20
"""Bytes that a compiled pattern may take."""


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str, field: str) -> None:
        """`field` is the pattern's place in the run file. Raises BadConfigError naming it."""
        options = re2.Options()
        options.max_mem = _MEMORY
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(text, options)
        except re2.error as error:
            why = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            raise BadConfigError(
                f"{field}: the pattern {text!r} cannot be used ({why}). Write a regular expression in RE2's syntax, "
                "which has no lookaround and no backreferences."
            ) from error

    def matches(self, text: str) -> bool:
        """Whether the pattern occurs in the text."""
        return self._compiled.search(_encodable(text)) is not None

    def find(self, text: str) -> str | None:
        """The first group of the first match, the whole match without groups, an empty text for a group that took no
        part; None without a match."""
        match = self._compiled.search(_encodable(text))
        if match is None:
            return None
        return str((match.group(1) if self._compiled.groups else match.group(0)) or "")


def _encodable(text: str) -> str:
    """The text without lone surrogates, which UTF-8 does not have."""
    return text.encode(errors="replace").decode()
