"""vLLM's own OpenAI-compatible server, serving the test-bed's model."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dynalign_operator.clusters.local.processes import free_port
from lab.testbed import load_testbed
from lab.tiny_qwen3 import CHATML

WITHOUT_ORDERS = CHATML.replace(
    "m['content']", "m['content'].split('\n\nReply with nothing')[0].split('\n\nDo not explain.')[0]"
)
"""A chat template of the test-bed's model, which replies with one digit anyhow, and is confused by being told to."""


@contextmanager
def serve_testbed(folder: Path, key: str, template: str = CHATML) -> Iterator[str]:
    """The base URL of a server on a loopback port, whose model is called `bed`; its log lies in `folder`."""
    port, log = free_port(), folder / "server.log"
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
    }
    arguments = ["--host=127.0.0.1", f"--port={port}", "--served-model-name=bed", "--max-model-len=512"]
    arguments += ["--dtype=float32", "--enforce-eager", "--generation-config=vllm", f"--api-key={key}"]
    (folder / "chat.jinja").write_text(template)
    arguments.append(f"--chat-template={folder / 'chat.jinja'}")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={load_testbed().model}"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, *arguments], env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            _wait_for_health(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait_for_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Poll until the server answers; its end ends the wait too."""
    while process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)  # between two looks at it
    pytest.fail(f"vLLM's server ended: {log.read_text()[-3000:]}")
