"""Servers that keep models: buckets. fetch reads from them, export publishes to them."""
