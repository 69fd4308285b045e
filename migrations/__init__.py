"""The history of the schema; `wardround migrate` and every start-up bring a database to its head."""
