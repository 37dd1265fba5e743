"""Task scripts, one file for each task: builder, prompts, labels, metrics, licence, and where to get the data."""
