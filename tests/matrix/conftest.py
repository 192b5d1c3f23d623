"""The command line, for tests of matrices too."""

from tests.cli.conftest import cli as cli
