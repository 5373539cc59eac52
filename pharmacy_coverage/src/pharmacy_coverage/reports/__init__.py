"""The daily report of a pharmacy: what the day brought, and which holes the next two weeks have."""
