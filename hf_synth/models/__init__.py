"""Encoders, sequence-to-sequence models and a linear head: load, tokenize, train, predict."""
