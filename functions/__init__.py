"""One folder a deployed function: main.py starts it, endpoints.py says what it answers."""
