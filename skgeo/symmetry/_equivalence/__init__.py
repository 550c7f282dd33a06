"""Equivalence of networks: canonical forms, symmetries and witnesses."""
