"""What scripts/gpu_bench.py and the tests marked ``gpu`` share: cases, checks, timing, results."""
