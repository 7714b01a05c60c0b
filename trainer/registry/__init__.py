"""Adapter bundles for good: written once, promoted by name, traced and, if need be, tainted."""
