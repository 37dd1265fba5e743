"""A page of text, tables and pictures, and the pictures."""
