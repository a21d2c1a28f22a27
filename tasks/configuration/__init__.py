"""Where settings come from, and the words for what is wrong there.

`variables` and `toml_file` read, `sources` lays the first over the second and knows where each value was
written, `faults` makes lines of what does not fit. `catalog` lists every setting with what it may be, for
`millpond config` and the page tasks/SETTINGS.md.
"""
