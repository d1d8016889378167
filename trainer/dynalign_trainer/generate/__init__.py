"""The generate stage: candidate answers to an iteration's prompts."""
