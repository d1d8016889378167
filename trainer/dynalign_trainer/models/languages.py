"""Which language a text is written in: py3langid, whose model comes inside the package."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from dynalign_contract.errors import BadConfigError

_MIN_LETTERS: Final = 12
"""A shorter text is too little to tell a language by."""


def recognise_language(text: str) -> str | None:
    """ISO 639-1 code of the text's language; None for a text of fewer than a dozen letters."""
    if sum(character.isalpha() for character in text) < _MIN_LETTERS:
        return None
    return str(_identifier().classify(text)[0])


class LanguageFilter:
    """Lets pass what is recognised as one of the wanted languages, and what is too short to tell."""

    def __init__(self, wanted: Sequence[str], field: str) -> None:
        """`field` is their place in the run file. Raises BadConfigError naming it and the codes that are not known."""
        self._wanted = frozenset(wanted)
        known = frozenset(map(str, _identifier().labels))
        if unknown := sorted(self._wanted - known):
            raise BadConfigError(
                f"{field}: {', '.join(unknown)} cannot be recognised. Remove it, or write one of "
                f"{', '.join(sorted(known))}."
            )

    def accepts(self, text: str) -> bool:
        """Whether the text is in a wanted language, or too short to tell."""
        found = recognise_language(text)
        return found is None or found in self._wanted


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
