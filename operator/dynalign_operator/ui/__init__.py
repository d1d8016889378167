"""`dynalign ui`: a live page of runs, served on loopback by the user's own process with the user's own rights."""
