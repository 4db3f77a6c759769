"""The importable package: a small kernel, one flat module a domain, one file a channel."""
