"""Kubernetes quantities as numbers, for comparing them."""

import re
from decimal import Decimal
from typing import Final

_FACTORS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTP", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTP", start=1)},
}


def parse_quantity(text: str) -> Decimal:
    """Value of a `Quantity` such as `500m` (0.5) or `1Gi` (1073741824). Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(match[1]) * _FACTORS[match[2]]
