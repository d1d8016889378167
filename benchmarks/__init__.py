"""Measurements of speed, memory and learning; each module prints a table and one line of JSON."""
