"""Where base models come from, one file a source, and what is checked before one is accepted."""
