"""What a run will take: tokens, seconds, GPU-hours, memory and disk, by arithmetic on its specification. Pure."""
