"""Models: their files, weights, tokens and texts, and the engine that runs them."""
