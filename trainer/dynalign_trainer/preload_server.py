"""`python -m dynalign_trainer.preload_server`: import once what all stages import, then fork off stages.

What CUDA has initialised does not survive a fork: where there is a GPU, every stage starts as a program of its own. A
line on standard input is a StageRequest, a line on standard output a StageEvent; the server ends with its input.
"""

import logging
import multiprocessing
import os
import signal
import sys
from typing import TextIO

from dynalign_contract.preload import StageEvent, StageRequest
from dynalign_trainer.main import main as run_stage
from dynalign_trainer.models.engine_start import import_libraries, prepare_environment
from dynalign_trainer.runtime.ending import end_at_once
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.machine import count_gpus
from dynalign_trainer.train.processes.forked import allow_fork


def main() -> None:
    """Serve requests until standard input ends, or until SIGTERM, which goes on to the running stage."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    is_loaded = _preload()
    for line in sys.stdin:
        if not _serve(StageRequest.model_validate_json(line), events, is_loaded=is_loaded):
            return


def _preload() -> bool:
    """Import what stages import; False where a stage may not be forked, and nothing was imported for it."""
    prepare_environment()
    if count_gpus():
        return False
    with importing():
        import_libraries()
        import dynalign_trainer.evaluate.stage
        import dynalign_trainer.export.stage
        import dynalign_trainer.generate.stage
        import dynalign_trainer.judge.stage
        import dynalign_trainer.prompts.stage  # noqa: F401

    allow_fork()
    return True


def _serve(request: StageRequest, events: TextIO, *, is_loaded: bool) -> bool:
    """Run one stage to its end; False when SIGTERM has come meanwhile."""
    stopped = False
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        events.close()  # the server's end shows by the end of this pipe
        _exec_stage(request, is_loaded=is_loaded)

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        os.kill(pid, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _send(events, StageEvent(pid=pid))
    _, status = os.waitpid(pid, 0)
    signal.signal(signal.SIGTERM, before)
    _send(events, StageEvent(pid=pid, returncode=os.waitstatus_to_exitcode(status)))
    return not stopped


def _exec_stage(request: StageRequest, *, is_loaded: bool) -> None:
    """In the child: a session, an environment and an output of its own, then the stage; never returns."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.chdir(request.folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    if not is_loaded:
        program = [sys.executable, "-m", "dynalign_trainer.main", *request.arguments]
        os.execve(sys.executable, program, request.environment)  # noqa: S606 - what `dynalign run` asked for
    os.environ.clear()
    os.environ.update(request.environment)
    end_at_once()
    try:
        run_stage(request.arguments)
    except SystemExit as ending:
        _leave(ending.code if isinstance(ending.code, int) else 1)
    raise AssertionError("a stage ends its process")


def _leave(code: int) -> None:
    """End this process at once: Python would visit every object that the server has imported, which takes seconds.

    The stage has written all that it leaves. A child process, such as an engine's worker, is ended in the usual way.
    """
    if multiprocessing.active_children():
        sys.exit(code)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _send(events: TextIO, event: StageEvent) -> None:
    try:
        events.write(f"{event.to_json()}\n")
        events.flush()
    except BrokenPipeError:
        return  # dynalign was killed; the next one finds this process by its environment


if __name__ == "__main__":
    main()
