"""`python -m benchmarks.gpu_check`: what of the stages' own code works on this machine's GPU, in nine minutes.

It needs one NVIDIA GPU (the model of the throughput check has 8 B parameters and takes 16 GiB of it and of /dev/shm),
PyTorch 2.11 or later, deepspeed, peft, transformers, pydantic and pyarrow; no network and no vLLM. Every check has a
process and a time limit of its own, and its result is appended to the report, a JSON object a line, as soon as it ends,
so that a run that is cut short still tells what it found. With `--device cpu` the sizes are tiny, and a check
that has no meaning there is skipped, which is never called passed.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_checks.finding import CHECKS, Check, Device, Finding, Outcome, Place, SkippedError
from lab.gpus import why_no_gpu

NAME: Final = "gpu-check"
TOTAL_SECONDS: Final = 540
_REPORT: Final = Path("build/gpu-check.jsonl")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of this process's own is made in it
_MEMORY_BYTES: Final = 24 * 2**30
"""What has to be free there: the model of 8 B parameters, or checkpoints of the small one."""
_ABSENT: Final = ("vllm", "trl", "datasets")
"""Not to be imported in the processes of the checks, which are to run alike where they are not installed."""
_LAST_LINES: Final = 5


@dataclass(frozen=True)
class Result:
    """What the report says of a check."""

    check: str
    outcome: Outcome
    seconds: float
    reason: str
    """Why it failed or was skipped."""
    values: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a check failed or there is no GPU to check, else 0."""
    options = _parse(arguments)
    device = Device(options.device)
    if options.run:
        for absent in _ABSENT:
            sys.modules.setdefault(absent, None)  # type: ignore[arg-type]
        return run_here(options.run, Place(device, options.folder), options.result)
    if device is Device.CUDA and (missing := why_no_gpu()):
        sys.stderr.write(f"{NAME}: {missing} --device cpu runs it with tiny sizes.\n")
        return 1
    chosen = [check for check in CHECKS if check.name in options.only]
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text("")
    results: list[Result] = []
    end = time.monotonic() + options.seconds
    for check in chosen:
        sys.stderr.write(f"{NAME}: {check.name}: {check.question}?\n")
        results.append(measure(check, device, min(check.seconds, end - time.monotonic())))
        with options.report.open("a") as file:
            file.write(json.dumps(asdict(results[-1])) + "\n")
    sys.stdout.write(options.report.read_text() if options.json else table(results))
    return 1 if any(result.outcome is Outcome.FAILED for result in results) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [check.name for check in CHECKS]
    parser = argparse.ArgumentParser(prog=NAME, description="Check the code of the stages on an NVIDIA GPU.")
    parser.add_argument("--only", type=_names, default=names, help=f"some of {','.join(names)}")
    parser.add_argument("--device", choices=list(Device), default=Device.CUDA, help="cpu: tiny sizes, without a GPU")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="time limit of all checks together")
    parser.add_argument("--report", type=Path, default=_REPORT, help=f"file with a JSON object a line ({_REPORT})")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table")
    for hidden, kind in (("--run", str), ("--folder", Path), ("--result", Path)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    wanted, known = text.split(","), {check.name for check in CHECKS}
    if unknown := [name for name in wanted if name not in known]:
        raise argparse.ArgumentTypeError(f"there is no check {unknown[0]!r}")
    return wanted


def measure(check: Check, device: Device, limit: float) -> Result:
    """Run a check in a process of its own, which is killed with its children after `limit` seconds."""
    if limit <= 0:
        return Result(check.name, Outcome.SKIPPED, 0.0, "the time for all checks is over", {})
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-", dir=_work_place()) as name:
        found, errors = Path(name) / "result.json", Path(name) / "stderr"
        (work := Path(name) / "work").mkdir()
        command = [sys.executable, "-m", "benchmarks.gpu_check", "--run", check.name, "--device", device]
        hidden = {} if device is Device.CUDA else {"CUDA_VISIBLE_DEVICES": ""}
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, "--folder", str(work), "--result", str(found)],
                env=os.environ | hidden,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                process.wait(limit)
                ending = f"its process ended with {process.returncode}"
            except subprocess.TimeoutExpired:
                ending = f"it took more than {limit:.0f} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = round(time.monotonic() - started, 1)
        if found.exists():
            written = json.loads(found.read_bytes())
            return Result(check.name, Outcome(written["outcome"]), seconds, written["reason"], written["values"])
        last = errors.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return Result(check.name, Outcome.FAILED, seconds, "; ".join([ending, *last]), {})


def _work_place() -> Path | None:
    """Where models are written: memory where there is enough of it, else the folder for temporary files."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES
    return _MEMORY if has_room else None


def run_here(name: str, place: Place, result: Path) -> int:
    """Run a check in this process and write what it found; the check's own faults are no error of the process."""
    try:
        finding: Finding = importlib.import_module(f"benchmarks.gpu_checks.{name}").check(place)
        outcome = Outcome.FAILED if finding.faults else Outcome.PASSED
        written = {"outcome": outcome, "reason": "; ".join(finding.faults), "values": dict(finding.values)}
    except SkippedError as error:
        written = {"outcome": Outcome.SKIPPED, "reason": str(error), "values": {}}
    except Exception as error:  # noqa: BLE001 - whatever a library raises on this machine is what the check found
        traceback.print_exc()
        written = {"outcome": Outcome.FAILED, "reason": f"{type(error).__name__}: {error}", "values": {}}
    temporary = result.with_suffix(".part")
    temporary.write_text(json.dumps(written))
    temporary.rename(result)
    return 0


def table(results: Sequence[Result]) -> str:
    """One line a check for people: outcome, seconds, and the reason or the values."""
    lines = [f"{'check':<14}{'outcome':<9}{'s':>6}  found"]
    for one in results:
        values = ", ".join(
            f"{name} {value}" for name, value in one.values.items() if not isinstance(value, dict | list)
        )
        lines.append(f"{one.check:<14}{one.outcome:<9}{one.seconds:>6.1f}  {one.reason or values}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
