"""Exemplars -> prompts -> answers -> gates -> synthetic rows."""
