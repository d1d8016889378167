"""What a user writes: run files, objectives, and sentences that say what is wrong with them. Pure."""
