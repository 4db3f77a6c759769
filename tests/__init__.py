"""Tests mirror shared/, functions/ and the migrations; tests/support holds what they share."""
