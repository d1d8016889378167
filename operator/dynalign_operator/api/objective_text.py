"""What an objective's text may be before anybody parses it: small, and without YAML's anchors. Pure.

A ConfigMap holds up to 1 MiB, and a text of 70 kB whose aliases are written out fills any memory. Whoever may create a
run decides what the operator of all runs reads, so both are refused before the parser sees them.
"""

from typing import Final

import yaml

LARGEST_OBJECTIVE_BYTES: Final = 64 * 1024
"""Of the text in UTF-8; the objectives that ship with dynalign have less than a tenth of it."""


def refuse_objective_text(text: str) -> tuple[int | None, str] | None:
    """Line (from 1) and sentence of what forbids to parse this text; None when nothing does."""
    size = len(text.encode(errors="replace"))
    if size > LARGEST_OBJECTIVE_BYTES:
        return None, (
            f"the text has {size:,} bytes; write at most {LARGEST_OBJECTIVE_BYTES:,} "
            "(an objective holds templates and rubrics, not data)"
        )
    try:
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
                sign = "&" if isinstance(token, yaml.AnchorToken) else "*"
                return token.start_mark.line + 1, (
                    f"the text uses the YAML anchor {sign}{token.value[:60]}; write the value out where it is needed"
                )
    except (yaml.YAMLError, ValueError):
        return None  # the parser says what is wrong, and where
    return None
