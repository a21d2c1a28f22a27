"""Count one task's life: the files, calls and changes of file of our own that it walks through."""
