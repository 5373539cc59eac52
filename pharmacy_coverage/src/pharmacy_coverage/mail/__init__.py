"""Mail: what is to be sent to whom, and the sending of it, once."""
