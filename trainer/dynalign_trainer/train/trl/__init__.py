"""The TRL backend: GRPOTrainer on recorded groups."""
