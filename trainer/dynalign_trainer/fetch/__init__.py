"""The fetch stage: the base model, one file a kind of source, and the data of capability tasks."""
