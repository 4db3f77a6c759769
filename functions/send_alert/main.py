"""Starts send-alert with the environment's settings; a bad one stops it here."""

from functions.send_alert.endpoints import create

send_alert = create().wsgi_entry()
