"""Stand-in for Supabase Auth, which has no registry build: issues and verifies ES256 tokens, keeps users in auth.users.

It answers the calls that this project and the Supabase clients make, in Supabase Auth's own words. Nothing outside
infra/local may know the difference to a hosted project.
"""
