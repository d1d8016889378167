"""Files of prompts and texts as people have them: how they are decoded, which shapes of rows are read, and how many."""
