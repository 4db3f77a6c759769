"""The demo: one urgent alert to thousands of invented people, followed to the end and reconciled with the carriers."""
