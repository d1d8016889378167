"""How a model scores an answer by the aspects of an objective: question, digit, reward."""
