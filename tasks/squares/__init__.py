"""The kind `squares.square`: the smallest example of a contract and its handler."""
