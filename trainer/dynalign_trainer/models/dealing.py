"""How prompts are dealt out to engines: by what each of them has to do already, and by what prompts share. Pure."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise


def deal_prompts(prompts: Sequence[Sequence[int]], engines: int) -> list[slice]:
    """Cut prompts that are only read, or continued by a few tokens, into a piece for each engine.

    A prompt costs the tokens that it does not share with the one before it. Neighbours that share a long beginning,
    such as the questions about one answer, stay together unless cutting between them saves more than reading it twice.
    """
    shared = [0, *(shared_prefix(first, second) for first, second in pairwise(prompts))]
    costs = [max(1, len(prompt) - known) for prompt, known in zip(prompts, shared, strict=True)]
    return deal(costs, shared, [0] * engines)


def deal(costs: Sequence[float], bonds: Sequence[float], loads: Sequence[float]) -> list[slice]:
    """Cut a row of items into a piece for each engine, in order; a piece may be empty.

    `costs` is what each item adds to an engine's work, `bonds` what it would cost to separate an item from the one
    before it, `loads` the work that each engine has: engines with less of it get more. Every cut lies where its bond,
    and its distance from the fairest place, are least together.
    """
    reached = [0.0, *accumulate(costs)]
    cuts = [0]
    for fair in list(accumulate(fill_up(loads, reached[-1])))[:-1]:
        inner = range(max(cuts[-1], 1), len(costs))
        places = {place: bonds[place] + abs(reached[place] - fair) for place in inner}
        places |= {place: abs(reached[place] - fair) for place in (cuts[-1], len(costs)) if place not in places}
        if fair <= reached[cuts[-1]]:
            cuts.append(cuts[-1])
        else:
            cuts.append(min(places, key=lambda place: (places[place], place)))
    return [slice(start, stop) for start, stop in pairwise([*cuts, len(costs)])]


def fill_up(loads: Sequence[float], more: float) -> list[float]:
    """What each engine gets of further work so that all of them have as much, as far as that can be."""
    level, left = 0.0, more
    ordered = sorted(loads)
    for count, (load, following) in enumerate(zip(ordered, [*ordered[1:], float("inf")], strict=True), start=1):
        level = load + left / count
        if level <= following:
            break
        left -= (following - load) * count
    return [max(0.0, level - load) for load in loads]


def shared_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens at the beginning that two prompts have in common."""
    shortest = min(len(first), len(second))
    return bisect_left(range(shortest), 1, key=lambda last: int(first[: last + 1] != second[: last + 1]))


def filled(pieces: Sequence[slice]) -> Iterator[tuple[int, slice]]:
    """The pieces that are not empty, with the index of their engine."""
    return ((index, piece) for index, piece in enumerate(pieces) if piece.start < piece.stop)
