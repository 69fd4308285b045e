"""The loop with a perfect oracle on a labelled folder; no database, broker or Label Studio."""
