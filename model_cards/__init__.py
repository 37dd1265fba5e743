"""Text of the cards: Jinja templates, filled by `hf_synth.cards`."""
