"""An honest judge from outside: an OpenAI-compatible server that rates the test-bed's answers by the rule itself."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MODEL: Final = "rule"
"""Name of the model at the server."""


def read_answer(question: str) -> str:
    """The answer in a judge's question, as `testbed_objective.yaml` words it."""
    return question.partition("\nAnswer: ")[2].rpartition("\n\nRate the ")[0]


@contextmanager
def serve_rule(rule: Callable[[str], float]) -> Iterator[str]:
    """Base URL of a server on a loopback port whose replies are the rule's score of the answer, a digit."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question: str = body["messages"][0]["content"]
            message = {"role": "assistant", "content": f"{rule(read_answer(question)):.0f}"}
            usage = {"prompt_tokens": len(question.split()), "completion_tokens": 1}
            reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Keep the benchmark's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
