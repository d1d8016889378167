"""The report of runs: one self-contained HTML file, made of the contract's artifacts alone."""
