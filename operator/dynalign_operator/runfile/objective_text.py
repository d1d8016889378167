"""What an objective's text may be before anybody parses it: small, and without YAML's anchors. Pure.

A ConfigMap holds up to 1 MiB, and a text of 70 kB whose aliases are written out fills any memory. Whoever may create a
run decides what the operator of all runs reads, so both are refused before the parser sees them.
"""

from dataclasses import dataclass
from typing import Final

import yaml

LARGEST_OBJECTIVE_BYTES: Final = 64 * 1024
"""Maximum size of the text in UTF-8; the objectives that ship with dynalign have less than a tenth of it."""


@dataclass(frozen=True)
class TextRefusal:
    """What forbids to parse a text."""

    line: int | None
    """Number of the line, from 1; None where no line is to blame."""
    sentence: str
    bare: str
    """The sentence without anything that stands in the text."""


def refuse_objective_text(text: str) -> TextRefusal | None:
    """What forbids to parse this text; None when nothing does."""
    size = len(text.encode(errors="replace"))
    if size > LARGEST_OBJECTIVE_BYTES:
        sentence = (
            f"the text has {size:,} bytes; write at most {LARGEST_OBJECTIVE_BYTES:,} "
            "(an objective holds templates and rubrics, not data)"
        )
        return TextRefusal(None, sentence, sentence)
    try:
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
                sign = "&" if isinstance(token, yaml.AnchorToken) else "*"
                remedy = "write the value out where it is needed"
                return TextRefusal(
                    token.start_mark.line + 1,
                    f"the text uses the YAML anchor {sign}{token.value[:60]}; {remedy}",
                    bare=f"the text uses a YAML anchor ({sign}); {remedy}",
                )
    except (yaml.YAMLError, ValueError):
        return None  # the parser says what is wrong, and where
    return None
