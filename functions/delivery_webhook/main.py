"""Starts delivery-webhook with the environment's settings; a bad one stops it here."""

from functions.delivery_webhook.endpoints import create

delivery_webhook = create().wsgi_entry()
