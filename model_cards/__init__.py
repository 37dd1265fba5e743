"""Text of the cards: Jinja templates, filled by `hf_synth.publishing.card_text`."""
