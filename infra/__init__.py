"""Around the platform: the embedded stack, deployment, benchmarks. Nothing in shared or functions knows them."""
