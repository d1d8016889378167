"""A server of rewards (docs/rewards.md): an answer is worth more the fewer words it repeats.

    REWARDS_KEY=secret python examples/reward_server.py 8000

The run names it with `rewards: [{name: variety, type: Http, endpoint: {url: "http://localhost:8000/"}}]`.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def score(item: dict) -> float | None:
    words = item["answer"].lower().split()
    return len(set(words)) / len(words) if words else None  # null: cannot be decided


class Rewards(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"protocols": ["dynalign.rewards/v1"]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply({"values": [score(item) for item in request["items"]]})

    def reply(self, answer: dict) -> None:
        key = os.environ.get("REWARDS_KEY")
        refused = key is not None and self.headers["Authorization"] != f"Bearer {key}"
        body = json.dumps({"error": "wrong key"} if refused else answer).encode()
        self.send_response(401 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Rewards).serve_forever()
