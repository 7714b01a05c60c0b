"""The main job, end to end: the shipped settings, engine, adapters; real clients."""
