"""Reports of evaluations for people: a page, its twin in JSON, and an index over all of them."""
