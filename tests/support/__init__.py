"""What the tests share: a stack of their own, its members, and small helpers."""
