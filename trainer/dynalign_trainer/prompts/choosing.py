"""Which of the drafts that passed become prompts: good ones, spread evenly over what they were seeded with. Pure."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from dynalign_trainer.prompts.drafts import Draft


def choose_drafts(
    drafts: Sequence[Draft], wanted: int, facets: Mapping[str, Sequence[str]], balance: float
) -> list[Draft]:
    """Up to `wanted` drafts, in their own order.

    They are taken greedily by score minus `balance` times the mean, over the facets, of how much of its even share
    (`wanted` over the number of values) a draft's value has had already. Unscored drafts count as lowest. A draft's
    worth only falls while others are taken, so a stale entry of the heap is put back with its new worth (Minoux, 1978).
    """
    taken: Counter[tuple[str, str]] = Counter()

    def worth(index: int) -> float:
        draft = drafts[index]
        score = draft.score if math.isfinite(draft.score) else 0.0
        used = [
            taken[name, draft.seed[name]] * len(values) / wanted
            for name, values in facets.items()
            if name in draft.seed
        ]
        return score - balance * math.fsum(used) / max(1, len(used))

    def entry(index: int) -> tuple[bool, float, int]:
        return not math.isfinite(drafts[index].score), -worth(index), index

    heap = [entry(index) for index in range(len(drafts))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < wanted:
        candidate = heapq.heappop(heap)
        fresh = entry(candidate[2])
        if fresh > candidate:
            heapq.heappush(heap, fresh)
            continue
        chosen.append(candidate[2])
        taken.update(drafts[candidate[2]].seed.items())
    return [drafts[index] for index in sorted(chosen)]


def evenness(facets: Mapping[str, Sequence[str]], seeds: Sequence[Mapping[str, str]]) -> float | None:
    """How evenly the values of a facet occur: entropy over its greatest possible, mean over the facets, 0 to 1.

    None without seeds, or without a facet of at least two values.
    """
    found = [
        _entropy([seed[name] for seed in seeds]) / math.log(most)
        for name, values in facets.items()
        if (most := min(len(set(values)), len(seeds))) > 1
    ]
    return math.fsum(found) / len(found) if found else None


def _entropy(values: Sequence[str]) -> float:
    shares = [count / len(values) for count in Counter(values).values()]
    return -math.fsum(share * math.log(share) for share in shares)
