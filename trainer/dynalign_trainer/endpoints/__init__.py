"""Servers that are asked by HTTP, models behind OpenAI-compatible ones first: requests, retries, budgets, refusals."""
