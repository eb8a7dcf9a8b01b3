"""Files from stores to a directory: parallel, resumable, verified."""
