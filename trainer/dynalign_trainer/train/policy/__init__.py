"""The weights in training: a LoRA adapter or the whole model, and its float32 copies."""
