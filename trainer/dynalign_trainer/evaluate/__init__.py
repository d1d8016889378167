"""The evaluate stage: a policy against the base model and earlier policies, on held-out prompts and tasks."""
