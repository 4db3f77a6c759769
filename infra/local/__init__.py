"""The embedded stack: a real Supabase core without Docker, stand-in carriers and the `credoalert` command line."""
