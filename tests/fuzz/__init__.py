"""Random networks laid beside dense answers: ``python -m tests.fuzz --n 1000``."""
