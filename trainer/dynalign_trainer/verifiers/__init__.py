"""Checks of an answer that a program decides: rewards beside the judge's. Pure."""
