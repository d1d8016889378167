"""DeepSpeed: configuration, CPU support and checkpoints without pickle."""
