"""Replies that have been paid for, kept beside the stage's work: an attempt that is repeated does not pay again.

What a server's refusals have taught is kept with them, for every endpoint of the stage that names the same server.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from dynalign_trainer.endpoints.completions import Reply
from dynalign_trainer.endpoints.manners import Manners

log = logging.getLogger("dynalign.endpoint")

JOURNAL_FILE: Final = ".replies.jsonl"
"""Beside the artifact's files while the stage works; gone when it is done."""

_REPLY: Final = TypeAdapter(Reply)
_MANNERS: Final = TypeAdapter(Manners)


class Journal:
    """Request -> reply, in a file to which every reply is appended as it comes."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier attempt has left; a line that it did not finish is passed over."""
        self._path = path
        self._replies: dict[str, Reply] = {}
        self._manners: dict[str, Manners] = {}
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
        self._append({"key": key, "reply": _REPLY.dump_python(reply, mode="json")})

    def manners(self, url: str, model: str) -> Manners:
        """What is known of how this server wants to be asked for this model."""
        return self._manners.get(_key(url, {"model": model}), Manners())

    def learn(self, url: str, model: str, manners: Manners) -> None:
        """Keep what a server has taught."""
        key = _key(url, {"model": model})
        self._manners[key] = manners
        self._append({"server": key, "manners": _MANNERS.dump_python(manners, mode="json")})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry, ensure_ascii=True)}\n")

    def _read(self, line: str) -> None:
        try:
            found = json.loads(line)
            if "server" in found:
                self._manners[found["server"]] = _MANNERS.validate_python(found["manners"])
                return
            self._replies[found["key"]] = _REPLY.validate_python(found["reply"])
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            log.warning("%s: a line is not whole and is passed over (%s)", self._path, type(error).__name__)


def _key(url: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([url, body], sort_keys=True).encode()).hexdigest()
