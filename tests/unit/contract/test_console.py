"""Logs are read in terminals: what models and servers wrote is text there too."""

import io
import logging

import pytest

from dynalign_contract.console import PlainFormatter, print_error_output, print_traceback

HOSTILE = "said \x1b]52;c;ZXZpbA==\x07\x9b2J\u202e\x1b[31mred"


def test_a_record_and_its_traceback_are_plain() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.error("the server %s", HOSTILE, exc_info=ValueError(HOSTILE))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ERROR the server said red"
    assert lines[-1] == "ValueError: said red"


def test_lines_of_other_processes_and_tracebacks_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_error_output(f"{HOSTILE}\n")
    print_traceback(RuntimeError(HOSTILE))
    assert capsys.readouterr().err == "said red\nRuntimeError: said red\n"
