"""The kinds `email.*`: contracts, templates, the message, the SMTP session, and the ledger of sent mails."""
