"""Headrace's trainer: from what was recorded to better adapters."""
