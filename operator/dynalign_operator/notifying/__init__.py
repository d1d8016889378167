"""Sending of notifications: what is sent, how it is signed, and until when it is tried."""
