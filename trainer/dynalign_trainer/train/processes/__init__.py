"""The processes that train: started by torchrun, watched, and ended together."""
