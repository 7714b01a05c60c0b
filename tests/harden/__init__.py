"""Attempts to break Headrace: what a hostile client, cloud, file or network can do."""
