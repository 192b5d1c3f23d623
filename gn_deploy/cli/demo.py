"""demo: TODO"""

from gn_deploy.cli.base import Answer


def demo() -> Answer:
    """TODO"""
    return Answer({})
