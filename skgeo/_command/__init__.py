"""The command line tool, ``python -m skgeo``."""
