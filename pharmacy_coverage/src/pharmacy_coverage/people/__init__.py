"""Who uses the platform: users, their sessions, and what pharmacists may do where."""
