"""The prompts stage: agents write training prompts, a curator selects them, users add their own."""
