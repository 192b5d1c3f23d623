"""The house plan as tests: layers, sizes, words, and what may be imported when."""
