"""Keys that callers present: what is known of them, and where it is kept. Never the keys."""
