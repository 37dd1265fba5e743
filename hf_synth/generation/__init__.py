"""Synthetic data generation: exemplars, prompts, answers, quality gates, synthetic rows."""
