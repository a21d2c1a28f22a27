"""The sources of settings, and the words for faults there.

`variables` and `toml_file` read, `sources` lays the first over the second and knows where each value was
written, `faults` makes lines of values that do not fit. `catalog` lists every setting with its values, for
`millpond config` and the page tasks/SETTINGS.md.
"""
