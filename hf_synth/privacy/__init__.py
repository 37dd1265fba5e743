"""Privacy audit before data leaves the site: copies of gold, identifiers, canaries, membership inference."""
