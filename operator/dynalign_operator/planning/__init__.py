"""Pure decisions: from what is observed of a run to what is to be done. No clock, no environment, no client."""
