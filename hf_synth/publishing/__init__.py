"""Publishing to a Hub: gate, export, card, push, withdrawal."""
