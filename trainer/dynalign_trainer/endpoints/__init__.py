"""Models behind OpenAI-compatible servers: requests, retries, budgets, and what to do when a server refuses."""
