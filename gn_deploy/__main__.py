"""``python -m gn_deploy``: the command line."""

from gn_deploy.cli.app import main

if __name__ == "__main__":
    main()
