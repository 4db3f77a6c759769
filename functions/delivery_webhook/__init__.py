"""delivery-webhook: providers tell what became of what was sent."""
