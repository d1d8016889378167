"""Where Jobs run: the protocol, and its implementations."""
