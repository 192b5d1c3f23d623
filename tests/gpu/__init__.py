"""What only a GPU can show: run with ``pytest -m gpu``. Nothing here runs by default."""
