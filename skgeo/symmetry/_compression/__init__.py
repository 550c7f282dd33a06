"""Fewer units for the same function: minimal width, compression, and what each unit costs."""
