"""Language models that write and judge: HTTP endpoints, local models, the Batch API, and a journal of the answers."""
