"""One journey, or many in a grid, and what a mixture of gold and synthetic rows is worth."""
