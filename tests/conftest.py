"""Every run gives the same result: hypothesis draws fixed examples, or new ones with --hypothesis-profile=explore."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("fixed")
