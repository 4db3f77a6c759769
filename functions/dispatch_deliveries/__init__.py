"""dispatch-deliveries: the only function that sends."""
