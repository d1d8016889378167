"""evaluate: the policy against the base model and its predecessor, on prompts that were never trained on."""
