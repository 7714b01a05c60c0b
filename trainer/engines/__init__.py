"""Ways to train a LoRA."""
