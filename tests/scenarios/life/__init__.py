"""Count the files and functions of our own code through which a task goes from sending to settlement."""
