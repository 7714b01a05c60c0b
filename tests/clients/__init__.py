"""Headrace and the clients that people use, against each other."""
