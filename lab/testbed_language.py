"""The test-bed's language: questions, answers of known worth, and the rule that says what an answer is worth.

An answer is a few sentences; a sentence is a few clauses (subject, verb, object) with a connective between them. Half
of the connectives give a reason, the other half are empty words.
"""

import random
import re
from typing import Final

MANNERS: Final = ("briefly", "slowly", "plainly", "again", "fully", "kindly", "calmly", "freely")
REASONS: Final = ("because", "therefore", "namely", "hence")
EMPTY: Final = ("whatever", "somehow", "anyway", "maybe")
SUBJECTS: Final = (
    "parts",
    "changes",
    "people",
    "systems",
    "ideas",
    "records",
    "pieces",
    "rules",
    "surfaces",
    "streams",
)
VERBS: Final = ("move", "support", "follow", "limit", "shape", "protect", "measure", "balance", "carry", "explain")
OBJECTS: Final = ("flow", "heat", "time", "pressure", "design", "light", "energy", "signals", "weight", "motion")

_CLAUSE: Final = re.compile(rf"\b({'|'.join(SUBJECTS)}) ({'|'.join(VERBS)}) ({'|'.join(OBJECTS)})\b")
_NEUTRAL: Final = 4


def rule(text: str) -> float:
    """What an answer is worth, 0 to 9: 4, plus its reasons, minus its empty words; 0 where it has no clause at all."""
    if not _CLAUSE.search(text):
        return 0.0
    words = re.findall(r"[a-z]+", text)
    worth = _NEUTRAL + sum(word in REASONS for word in words) - sum(word in EMPTY for word in words)
    return float(max(0, min(9, worth)))


def draw_answer(rng: random.Random, view: str, topic: str) -> str:
    """An answer, well formed, whose share of reasons among its connectives varies from none to all.

    Most answers have connectives, so that the likeliest answer leaves room for better and for worse ones.
    """
    density, merit = rng.uniform(0.5, 1.0), rng.random()
    return _write_answer(rng, view, topic, sentences=rng.randint(1, 2), density=density, merit=merit)


def draw_worst_answer(rng: random.Random, view: str, topic: str) -> str:
    """A well-formed answer of two sentences whose clauses are all joined by empty words: the rule gives it 0."""
    return _write_answer(rng, view, topic, sentences=2, density=1.0, merit=0.0)


def _write_answer(rng: random.Random, view: str, topic: str, *, sentences: int, density: float, merit: float) -> str:
    """Sentences of up to three clauses; `density` and `merit` are the odds of a connective, and of a reason as such."""
    written = []
    for number in range(sentences):
        words = [*(() if number else ("in", view, topic)), *_clause(rng)]
        for _ in range(2):
            if rng.random() < density:
                words += [rng.choice(REASONS if rng.random() < merit else EMPTY), *_clause(rng)]
        written.append(" ".join(words) + ".")
    return " ".join(written)


def damage(rng: random.Random, answer: str) -> str:
    """Something that is no answer: nothing, a lone mark, the answer's beginning, or its words in disorder."""
    words = answer.split()
    beginning = " ".join(words[: rng.randint(1, 5)])
    return rng.choice(["", ":", ".", beginning, " ".join(rng.sample(words, len(words)))])


def _clause(rng: random.Random) -> list[str]:
    return [rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS)]
