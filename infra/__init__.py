"""Everything around the platform: the embedded stack, deployment and benchmarks. Nothing in shared or functions knows it."""
