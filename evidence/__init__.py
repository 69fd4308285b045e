"""What a project's own figures say: numbers in, judgements with intervals out. No I/O, no torch, no SQL, no ids."""
