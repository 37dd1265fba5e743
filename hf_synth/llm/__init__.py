"""Language models that write and judge: an endpoint, this process, the Batch API, and the journal of their answers."""
