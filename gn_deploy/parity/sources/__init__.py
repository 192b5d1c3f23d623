"""Inputs of the user's own: read one case at a time from files, folders and functions, and matched with a model."""
