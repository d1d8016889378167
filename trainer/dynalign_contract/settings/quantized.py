"""What is done with a checkpoint whose weights are quantised."""

from enum import StrEnum


class Quantized(StrEnum):
    """Whether quantised weights are refused or converted."""

    REFUSE = "Refuse"
    """Fetch refuses them within seconds, and says what to write instead."""
    DEQUANTIZE = "Dequantize"
    """Fetch writes a copy in BFloat16, from which the policy is sampled, trained and exported."""
