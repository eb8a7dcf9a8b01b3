"""Models: where they come from, how they reach the cache, and what the server sees of them."""
