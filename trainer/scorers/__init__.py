"""Ways to judge an answer."""
