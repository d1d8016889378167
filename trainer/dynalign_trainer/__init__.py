"""The stages: fetch, prompts, generate, judge, train, evaluate, export. They write files and nothing else."""
