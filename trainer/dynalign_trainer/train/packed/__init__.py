"""The Packed backend: GRPO on recorded groups without padding. It imports neither TRL nor vLLM."""
