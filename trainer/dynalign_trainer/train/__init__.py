"""The train stage: GRPO on recorded groups, by TRL or by the Packed backend, on the same batch."""
