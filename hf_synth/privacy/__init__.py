"""What must not leave the site: copies of gold, identifiers, canaries, membership."""
