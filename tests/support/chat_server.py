"""A small OpenAI-compatible server, whose answers a test decides."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.loopback import serve


@dataclass(frozen=True)
class Answer:
    """A response: JSON unless `body` is bytes."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ChatServer:
    """What it was asked, and how it answers."""

    answer: Callable[[dict[str, Any]], Answer]
    """Body of a POST -> response."""
    models: tuple[str, ...] | None = ("m",)
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    hosts: list[str | None] = field(default_factory=list)
    """`Host` headers."""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count requests that are under way at a time."""
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1


def completion(text: str, *, reason: str = "stop", usage: tuple[int, int] | None = (10, 5)) -> Answer:
    body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Answer(body)


def scored(*tokens: tuple[str, dict[str, float]]) -> Answer:
    """A completion of these tokens, each with the probabilities of its alternatives."""
    answer = completion("".join(text for text, _ in tokens))
    content = [
        {
            "token": text,
            "logprob": math.log(likely.get(text, 0.5)),
            "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in likely.items()],
        }
        for text, likely in tokens
    ]
    answer.body["choices"][0]["logprobs"] = {"content": content}
    return answer


def refusal(status: int, message: str, **headers: str) -> Answer:
    return Answer({"error": {"message": message}}, status, {name.replace("_", "-"): v for name, v in headers.items()})


@contextmanager
def serve_chat(
    answer: Callable[[dict[str, Any]], Answer], models: tuple[str, ...] | None = ("m",), *, any_path: bool = False
) -> Iterator[ChatServer]:
    """A server on a loopback port of its own; with `any_path` it answers as a proxy would."""
    state = ChatServer(answer, models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.counted():
                with state.lock:
                    state.asked.append(body)
                    state.keys.append(self.headers["Authorization"])
                    state.hosts.append(self.headers["Host"])
                right = any_path or self.path == "/v1/chat/completions"
                self._send(state.answer(body) if right else Answer({"detail": "Not Found"}, 404))

        def do_GET(self) -> None:
            if self.path != "/v1/models" or state.models is None:
                self._send(Answer({"detail": "Not Found"}, 404))
            else:
                self._send(Answer({"data": [{"id": name} for name in state.models]}))

        def _send(self, answer: Answer) -> None:
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(data)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Keep the test's output clean."""

    with serve(Handler) as origin:
        state.url = f"{origin}/v1"
        yield state
