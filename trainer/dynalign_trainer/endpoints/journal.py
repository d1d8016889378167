"""Replies that have been paid for, kept beside the stage's work: an attempt that is repeated does not pay again."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from dynalign_trainer.endpoints.completions import Reply

log = logging.getLogger("dynalign.endpoint")

JOURNAL_FILE: Final = ".replies.jsonl"
"""Beside the artifact's files while the stage works; gone when it is done."""

_REPLY: Final = TypeAdapter(Reply)


class Journal:
    """Request -> reply, in a file to which every reply is appended as it comes."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier attempt has left; a line that it did not finish is passed over."""
        self._path = path
        self._replies: dict[str, Reply] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def find(self, url: str, body: Mapping[str, Any]) -> Reply | None:
        """The reply to this request, if there has been one."""
        return self._replies.get(_key(url, body))

    def add(self, url: str, body: Mapping[str, Any], reply: Reply) -> None:
        """Keep a reply."""
        key = _key(url, body)
        self._replies[key] = reply
        line = json.dumps({"key": key, "reply": _REPLY.dump_python(reply, mode="json")}, ensure_ascii=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _read(self, line: str) -> None:
        try:
            found = json.loads(line)
            self._replies[found["key"]] = _REPLY.validate_python(found["reply"])
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            log.warning("%s: a line is not whole and is passed over (%s)", self._path, type(error).__name__)


def _key(url: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([url, body], sort_keys=True).encode()).hexdigest()
