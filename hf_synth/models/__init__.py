"""Encoders and sequence-to-sequence models: load them, read notes, train, predict."""
