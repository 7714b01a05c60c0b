"""Servers that complete chats."""
