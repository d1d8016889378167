"""Several judges of the same candidates: each is asked and measured alone, and their rewards become one."""
