"""From the ledger's log to identities: read from a position, decided in order, never in ingest."""
