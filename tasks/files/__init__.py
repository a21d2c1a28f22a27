"""The kinds `files.*`: a module for each operation. `storage.py` opens inputs and outputs below the roots."""
