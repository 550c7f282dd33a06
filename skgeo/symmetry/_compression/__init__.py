"""Compression: networks of fewer units for the same function."""
