"""Every run gives the same result: hypothesis draws fixed examples, unless --hypothesis-profile=explore asks for new."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("fixed")
