"""Tests of the database, by domain, against a real PostgreSQL and a real PostgREST."""
