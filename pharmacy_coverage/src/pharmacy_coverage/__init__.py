"""Pharmacies post open shifts, relief pharmacists apply, managers confirm one of them.

A map of the house, in the order in which a shift lives:

    shifts/         posting, the cached search, the shift's page
    applications/   applying, the rules, the calendar, confirming
    outbox/         what is owed: written with the change, published to toril by the relay
    mail/           deliveries, and the SMTP that carries them
    reports/        the daily report of a pharmacy
    people/         users, sessions, sign-in, licences
    pharmacies/     pharmacies and their board
    operations/     health and the operator's page

`main.py` is the web application, `worker.py` the worker processes, `relay.py` the process between MongoDB and the
queues, `seed.py` a demonstration, `report.py` a report by hand. MongoDB knows what is owed; Redis only knows who is
working on it right now.
"""
