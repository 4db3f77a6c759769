"""Starts dispatch-deliveries with the environment's settings; a bad one stops it here."""

from functions.dispatch_deliveries.endpoints import create

dispatch_deliveries = create().asgi_entry()
