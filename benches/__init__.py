"""Benchmarks: flyball beside what people would use instead. Run as `python -m benches`."""
