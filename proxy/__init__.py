"""Headrace's proxy: an OpenAI-compatible server that answers from LoRA adapters first."""
