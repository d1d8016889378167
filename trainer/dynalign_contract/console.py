"""Logs and error output of operator and stages, which people read in a terminal: `kubectl logs`, `dynalign logs`.

Texts of models, servers and users lose control characters here and nowhere else on this way.
"""

import logging
import sys
import traceback

from dynalign_contract.plain_text import plain_text


class PlainFormatter(logging.Formatter):
    """Formats a record, its traceback included, as plain text."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text without control characters."""
        return plain_text(super().format(record))


def configure_logging(level: int | str = logging.INFO) -> None:
    """Log to stderr with time, level and name, unless logging is configured already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def print_error_output(text: str) -> None:
    """Pass on what another process has written, such as a line of a training worker."""
    sys.stderr.write(plain_text(text))


def print_traceback(error: BaseException) -> None:
    """Print an exception with where it came from."""
    print_error_output("".join(traceback.format_exception(error)))
