"""Read the settings from their sources, and describe them and their faults.

`variables` and `toml_file` read one source each. `sources` merges them and finds the source of each value.
`faults` describes the values that cannot be used. `catalog` lists every setting with its values, for
`millpond config` and the page tasks/SETTINGS.md.
"""
