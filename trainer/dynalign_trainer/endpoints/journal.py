"""Answers that have been paid for, kept beside the stage's work: an attempt that is repeated does not pay again.

What a server's refusals have taught is kept with them, for every endpoint of the stage that names the same server.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from dynalign_trainer.endpoints.completions import Reply
from dynalign_trainer.endpoints.manners import Manners

log = logging.getLogger("dynalign.endpoint")

JOURNAL_FILE: Final = ".replies.jsonl"
"""Beside the artifact's files while the stage works; gone when it is done."""

R = TypeVar("R")

_REPLY: Final = TypeAdapter(Reply)
_MANNERS: Final = TypeAdapter(Manners)


class AnswerJournal(Generic[R]):
    """Request -> answer, in a file to which every answer is appended as it comes."""

    def __init__(self, path: Path, answers: TypeAdapter[R]) -> None:
        """Read what an earlier attempt has left; a line that it did not finish is passed over."""
        self._path = path
        self._adapter = answers
        self._answers: dict[str, R] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def find(self, url: str, body: Mapping[str, Any]) -> R | None:
        """The answer to this request, if there has been one."""
        return self._answers.get(_key(url, body))

    def add(self, url: str, body: Mapping[str, Any], answer: R) -> None:
        """Keep an answer."""
        key = _key(url, body)
        self._answers[key] = answer
        self._append({"key": key, "reply": self._adapter.dump_python(answer, mode="json")})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry, ensure_ascii=True)}\n")

    def _read(self, line: str) -> None:
        try:
            self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            log.warning("%s: a line is not whole and is passed over (%s)", self._path, type(error).__name__)

    def _take(self, found: Any) -> None:
        self._answers[found["key"]] = self._adapter.validate_python(found["reply"])


class Journal(AnswerJournal[Reply]):
    """Replies of models, and what their servers' refusals have taught."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier attempt has left; a line that it did not finish is passed over."""
        self._manners: dict[str, Manners] = {}
        super().__init__(path, _REPLY)

    def manners(self, url: str, model: str) -> Manners:
        """What is known of how this server wants to be asked for this model."""
        return self._manners.get(_key(url, {"model": model}), Manners())

    def learn(self, url: str, model: str, manners: Manners) -> None:
        """Keep what a server has taught."""
        key = _key(url, {"model": model})
        self._manners[key] = manners
        self._append({"server": key, "manners": _MANNERS.dump_python(manners, mode="json")})

    def _take(self, found: Any) -> None:
        if "server" in found:
            self._manners[found["server"]] = _MANNERS.validate_python(found["manners"])
        else:
            super()._take(found)


def _key(url: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([url, body], sort_keys=True).encode()).hexdigest()
