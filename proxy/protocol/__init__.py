"""What the proxy and the trainer agree on: requests, answers, formats, exchanges, adapters.

A leaf: nothing here imports any other part of either package.
"""
