"""One file a task: builder, prompts, labels, metrics, licence, and where to get the files."""
