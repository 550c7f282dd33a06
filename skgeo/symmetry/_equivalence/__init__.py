"""Whether two networks compute one function, and the forms and moves that decide it."""
