"""send-alert: members quote and send alerts."""
