"""The checks of `benchmarks.gpu_check`, one module each; a check runs in a process of its own."""
